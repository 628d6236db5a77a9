"""A plain ViT into whose tokens a convolutional side network injects its maps."""
