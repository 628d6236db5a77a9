"""Adaptations: what of a model learns in a stage, and how; one file each."""
