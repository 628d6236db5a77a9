"""What measures and operators see of models: weights, running models, images, losses, features."""
