"""vitarium: grow, keep, measure and use populations of vision transformers."""
