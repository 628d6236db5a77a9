"""Architectures, one file each, with heads and initializations that fit all of them."""
