"""Transformers whose tokens are cut, kept or shaped otherwise than one per patch."""
