"""Channels that are the same for every input."""
