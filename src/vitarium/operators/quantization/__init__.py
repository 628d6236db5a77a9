"""Post-training quantization: weights as integers, activations on few values."""
