"""edgec: an edge and neuromorphic deployment compiler."""
