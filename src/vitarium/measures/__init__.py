"""Measures, one file each: model -> numbers, or pair of models -> numbers."""
