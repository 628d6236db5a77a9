"""Measures of what models make of changed images: corrupted, shifted, attacked."""
