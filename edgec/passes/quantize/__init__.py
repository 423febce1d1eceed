"""A float graph to an integer graph."""
