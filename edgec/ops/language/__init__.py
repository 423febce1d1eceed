"""The language of `Map`: functions of one element, operations, expressions and what is read from them."""
