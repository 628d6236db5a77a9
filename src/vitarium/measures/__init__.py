"""Measures, one file each: model -> numbers, kept as records of the zoo."""

from vitarium.measures.measuring import measure

__all__ = ["measure"]
