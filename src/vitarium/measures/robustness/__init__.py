"""Measures of robustness to corrupted, shifted and attacked images."""
