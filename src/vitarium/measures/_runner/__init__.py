"""Runs measures over a zoo: what is known is read, what is missing is computed and kept."""
