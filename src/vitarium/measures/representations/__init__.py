"""Measures of what layers make of images, and how alike two layers are."""
