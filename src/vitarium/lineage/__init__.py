"""Lineage recovery: which models descend from which, from their weights alone; see `base.py`."""
