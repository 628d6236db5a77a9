"""Architectures, one file each, with heads and initialisations that fit all of them."""
