"""ViTs with classifiers after some blocks, at which images leave that are easy to classify."""
