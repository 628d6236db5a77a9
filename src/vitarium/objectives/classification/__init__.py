"""Objectives that learn the classes."""
