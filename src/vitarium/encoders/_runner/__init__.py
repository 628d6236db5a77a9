"""Runs weight encoders over a zoo, and keeps their vectors."""
