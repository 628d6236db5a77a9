"""Import and export, one file per format: what others write -> a zoo -> what others read."""
