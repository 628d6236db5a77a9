"""Measures of a model at its start: scores that rank architectures without training, and sizes."""
