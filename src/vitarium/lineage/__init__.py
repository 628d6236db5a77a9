"""Lineage recovery: which models descend from which, from their weights alone.

`recover` runs it on a zoo or a folder; a method is one file or folder in `methods/`, and
`base.py` is its contract.
"""
