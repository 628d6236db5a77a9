"""Exporters, one file per format: a zoo -> what others read."""
