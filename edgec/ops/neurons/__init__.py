"""Float neurons."""
