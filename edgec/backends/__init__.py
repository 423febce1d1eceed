"""Generated code: kernels through TVM, the library around them."""
