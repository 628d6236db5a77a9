"""Operators that weigh every entry by what images do inside the models."""
