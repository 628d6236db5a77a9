"""Objectives that compare views of images, without labels."""
