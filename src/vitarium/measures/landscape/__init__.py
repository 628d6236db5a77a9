"""Measures of the loss around models and between them."""
