"""Objectives that learn to compress images."""
