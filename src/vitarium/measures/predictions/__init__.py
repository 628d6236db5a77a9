"""Measures of predicted class probabilities, of one model or a pair."""
