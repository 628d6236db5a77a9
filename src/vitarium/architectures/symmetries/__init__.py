"""What leaves a model's function unchanged, declared as data: units' orders, scales, rotations."""
