"""Runs a plan: worker processes, retries, progress."""

from vitarium.engine.growth import Growth, grow

__all__ = ["Growth", "grow"]
