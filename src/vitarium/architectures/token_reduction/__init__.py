"""Plain ViTs whose blocks drop or merge tokens; their weights are those of `vit`."""
