"""Transformers with several experts in a block."""
