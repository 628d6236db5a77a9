"""Transformers whose layers are built, joined or computed otherwise."""
