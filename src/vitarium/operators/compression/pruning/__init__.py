"""Operators that leave weights, heads, hidden units or blocks out."""
