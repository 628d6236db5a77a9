"""Architectures that are trained in one form, and computed in another."""
