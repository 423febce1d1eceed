"""A whole-sequence graph to a step with state."""
