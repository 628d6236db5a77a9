"""Importers, one file per format: what others write -> a zoo."""
