"""Measures of weights alone."""
