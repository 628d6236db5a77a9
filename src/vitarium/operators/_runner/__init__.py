"""Runs operators on the models of a zoo."""
