"""Transformers whose tokens attend otherwise than by the softmax of scaled inner products."""
