"""Augmentations, one file each, and what they are made of."""
