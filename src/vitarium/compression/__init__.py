"""Compact twins of a zoo's models."""
