"""Operators, one file each: models of a zoo -> another model of it."""

from vitarium.operators.merging import merge

__all__ = ["merge"]
