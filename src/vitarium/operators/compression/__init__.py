"""Operators that make a smaller model of one model."""
