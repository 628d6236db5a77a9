"""Compact twins of a zoo's models."""

from vitarium.compressing.comparison import compare
from vitarium.compressing.compressing import Compression, compress

__all__ = ["Compression", "compare", "compress"]
