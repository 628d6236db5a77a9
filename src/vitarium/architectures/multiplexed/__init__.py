"""Transformers whose consecutive blocks share their large matrices (MiniViT)."""
