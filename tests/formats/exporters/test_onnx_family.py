"""timm's vision transformers in small: each kind of attention and positions becomes ONNX."""

import pytest
import timm
import torch

from vitarium.formats.exporters import onnx as onnx_file

SMALL = {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32}
IN_14 = {**SMALL, "img_size": 28}
STAGES = {"img_size": 32, "embed_dim": 12, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4}
FAST = {"beit_base_patch16_224": SMALL, "samvit_base_patch16_224": SMALL}
"""Positions that are added to attention: what fused kernels cannot be exported with."""
SLOW = {
    "vit_small_patch16_224": {**SMALL, "qk_norm": True, "global_pool": "avg"},
    "vit_base_patch16_siglip_224": SMALL,
    "vit_relpos_base_patch16_clsgap_224": SMALL,
    "vit_small_patch16_rope_224": SMALL,
    "eva02_tiny_patch14_224": IN_14,
    "cait_xxs24_224": SMALL,
    "swin_tiny_patch4_window7_224": STAGES,
}
"""A kind of attention or of positions each."""
MORE = {
    "vit_small_patch14_reg4_dinov2": IN_14,
    "vit_base_patch16_clip_224": SMALL,
    "vit_so150m_patch16_reg4_map_256": SMALL,
    "vit_pwee_patch16_reg1_gap_256": SMALL,
    "vit_srelpos_small_patch16_224": SMALL,
    "vit_small_patch16_rope_mixed_224": SMALL,
    "vit_small_patch16_dinov3": SMALL,
    "vit_pe_core_tiny_patch16_384": SMALL,
    "vit_base_patch16_xp_224": SMALL,
    "vit_dlittle_patch16_reg1_gap_256": SMALL,
    "aimv2_large_patch14_224": IN_14,
    "beitv2_base_patch16_224": SMALL,
    "beit3_base_patch16_224": SMALL,
    "deit3_small_patch16_224": SMALL,
    "deit_tiny_distilled_patch16_224": SMALL,
    "flexivit_small": SMALL,
    "naflexvit_base_patch16_gap": {"depth": 1, "embed_dim": 32, "num_heads": 2},
    "xcit_nano_12_p16_224": SMALL,
    "convit_tiny": {**SMALL, "embed_dim": 8, "depth": 2},
    "tnt_s_legacy_patch16_224": {"img_size": 32, "depth": 1},
    "swinv2_tiny_window8_256": STAGES,
    "swinv2_cr_tiny_224": STAGES,
    "pit_ti_224": {"img_size": 64},
}
"""Rarer kinds, and the families that are built of those above."""


def check(name, arguments, file):
    model = timm.create_model(name, num_classes=4, **arguments).eval()
    side = arguments.get("img_size") or model.pretrained_cfg["input_size"][-1]
    images = torch.randn(2, 3, side, side)
    unfused = timm.create_model(name, num_classes=4, **arguments).eval()
    unfused.load_state_dict(model.state_dict())
    with onnx_file.quiet():
        onnx_file.write(onnx_file.unfused(unfused), images, file, 18, {})
        assert onnx_file.largest_error(model, images, file) <= onnx_file.TOLERANCE


@pytest.mark.parametrize("name", FAST)
def test_attention_with_added_positions_becomes_onnx(tmp_path, name):
    check(name, FAST[name], tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_usual_kinds_of_attention_become_onnx(tmp_path, name):
    check(name, SLOW[name], tmp_path / "model.onnx")


@pytest.mark.evidence
@pytest.mark.parametrize("name", MORE)
def test_every_family_of_timm_becomes_onnx(tmp_path, name):
    check(name, MORE[name], tmp_path / "model.onnx")
