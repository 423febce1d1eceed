"""What a compiled model costs and how far it is from its reference."""
