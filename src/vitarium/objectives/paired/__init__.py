"""Objectives that learn from pairs: two views of an image, or two modalities."""
