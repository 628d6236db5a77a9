"""Data sets, one file each, and the batches that are made of them."""
