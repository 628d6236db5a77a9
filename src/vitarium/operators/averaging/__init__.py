"""Operators that average weights: of models, of epochs, on lines, spheres and curves."""
