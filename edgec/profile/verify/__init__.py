"""A compiled network against what it was made of."""
