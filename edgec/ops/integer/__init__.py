"""Ops on integers."""
