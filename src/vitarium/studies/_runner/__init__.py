"""Runs a study of a zoo, and writes its page and its figures."""
