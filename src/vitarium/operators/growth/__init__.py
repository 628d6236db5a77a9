"""Operators that make a larger model of one model, which computes the same at first."""
