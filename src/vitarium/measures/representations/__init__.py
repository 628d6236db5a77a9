"""Similarity measures of representations, layer by layer."""
