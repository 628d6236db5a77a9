"""Runs a plan: worker processes, retries, progress."""
