"""Objectives that predict what is hidden of an image."""
