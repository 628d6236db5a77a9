"""Runs operators on the models of a zoo."""

from vitarium.merging.merging import merge

__all__ = ["merge"]
