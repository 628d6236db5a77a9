"""Files that lineage recovery reads and writes: models, tables of parents, forests."""
