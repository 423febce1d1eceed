"""Cycles modelled from the instructions that ran."""
