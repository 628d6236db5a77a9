"""Measures of attention, and of the influence of position on features."""
