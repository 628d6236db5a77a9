"""Which models descend from which, and how sure that is."""
