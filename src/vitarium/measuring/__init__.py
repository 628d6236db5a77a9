"""Runs measures over a zoo: what is known is read, what is missing is computed and kept."""

from vitarium.measuring.measuring import NotKept, measure

__all__ = ["NotKept", "measure"]
