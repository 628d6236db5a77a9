"""Runs measures over a zoo: stored values are read, missing ones computed and stored."""
