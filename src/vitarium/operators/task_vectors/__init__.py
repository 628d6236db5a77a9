"""Operators on task vectors, which are what models added to their base."""
