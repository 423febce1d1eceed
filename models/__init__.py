"""The models edgec ships, one folder each."""
