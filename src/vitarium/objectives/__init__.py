"""Training objectives, one file each: (model, batch) -> loss and logged numbers."""
