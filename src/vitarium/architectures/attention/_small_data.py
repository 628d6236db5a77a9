"""The sizes of ViTs for small data sets that several papers share."""

from typing import Any

_SIZES = {"embed_dim": 192, "depth": 9, "num_heads": 12, "mlp_ratio": 2.0, "qkv_bias": False}


def small_data_presets(name: str) -> dict[str, dict[str, Any]]:
    """Of a model, for images of 32 and of 64 pixels (Lee et al. 2021, arXiv 2112.13492, Sec. 4)."""
    return {
        f"{name}_patch4_32": {**_SIZES, "img_size": 32, "patch_size": 4},
        f"{name}_patch8_64": {**_SIZES, "img_size": 64, "patch_size": 8},
    }
