"""Methods of lineage recovery, one file or folder each: weights -> a forest."""
