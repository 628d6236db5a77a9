"""Plain vision transformers: of timm's parts, of timm by name, DINOv2's."""
