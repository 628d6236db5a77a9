"""What studies compute of a population: intervals, variance explained, embeddings."""
