"""Models of timm, one of each family, that overrides make tiny."""

PLAIN = {"embed_dim": 24, "depth": 1, "num_heads": 2}
FAMILIES = {
    "vitamin_small_224": ({"img_size": 32, "depth": 1}, "patch_embed: .* HybridEmbed"),
    "tf_efficientnetv2_b0": ({"img_size": 32}, "EfficientNet declares"),
    "swinv2_tiny_window8_256": (
        {"img_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
        "SwinTransformerV2 declares",
    ),
    "deit3_small_patch16_224": ({"img_size": 32, **PLAIN}, ""),
    "eva02_tiny_patch14_224": ({"img_size": 28, **PLAIN}, "Eva declares"),
    "hiera_tiny_224": (
        {"img_size": 64, "embed_dim": 8, "num_heads": 1, "stages": [1, 1, 1, 1]},
        "Hiera declares",
    ),
    "tiny_vit_5m_224": (
        {"img_size": 32, "embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
         "num_heads": [1, 1, 2, 2], "window_sizes": [2, 2, 2, 2]},
        "TinyVit declares",
    ),
    "vit_base_patch16_siglip_224": ({"img_size": 32, **PLAIN}, "attn_pool.* is not declared"),
    "vit_base_patch32_clip_224": ({"img_size": 64, **PLAIN}, ""),
    "vit_small_patch14_dinov2": ({"img_size": 28, **PLAIN}, ""),
    "vit_small_patch16_dinov3": ({"img_size": 32, **PLAIN}, "Eva declares"),
    "levit_256d": (
        {"img_size": 64, "embed_dim": [16, 24, 32], "key_dim": 4, "num_heads": [1, 2, 2],
         "depth": [1, 1, 1]},
        "Levit declares",
    ),
    "resnet10t": ({"img_size": 32}, "ResNet declares"),
}  # fmt: skip
"""By name: overrides, and why its units cannot be aligned; "": they can."""
