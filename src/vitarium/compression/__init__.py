"""Compact students of a zoo's models."""
