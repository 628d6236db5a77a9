"""Architectures of which parts are models, too."""
