"""Measures of attention, and of what position does to features."""
