"""How the elements, axes and ranges of results and operands relate, read from what ops declare."""
