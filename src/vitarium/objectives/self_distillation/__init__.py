"""Objectives that learn from a momentum average of the model itself."""
