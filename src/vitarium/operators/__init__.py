"""Operators, one file each: models of a zoo -> another model of it."""
