"""Measures of the loss landscape, around a model and between two."""
