"""Loops of generic kernels, as TVMScript text."""
