"""Operators that rearrange one model's units to match another's."""
