"""Vision transformers whose weights are stored as integers of 3 to 8 bits."""
