"""Policies: random operations on images by name and magnitude; one file each."""
