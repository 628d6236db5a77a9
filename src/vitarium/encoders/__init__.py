"""Weight encoders: one file per method that turns the weights of a model into a vector."""
