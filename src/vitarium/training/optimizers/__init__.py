"""Optimizers, one file each, with their settings as generating factors."""
