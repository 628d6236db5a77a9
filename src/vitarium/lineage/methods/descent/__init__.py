"""Our own method of lineage recovery, and its steps."""
