"""Runs weight encoders over a zoo, keeps their vectors, and lays models out by them."""
