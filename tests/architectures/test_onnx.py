"""Architectures, and families of timm's, as ONNX: ONNX Runtime computes what the model does."""

import pytest
import torch

from reference.timm_families import FAMILIES
from vitarium.core import registry, seeds
from vitarium.core.registry import choose
from vitarium.formats.exporters.onnx import TOLERANCE, largest_error, quiet, unfused, write

pytestmark = pytest.mark.evidence


def exported_error(chosen, folder):
    with seeds.seeded(0):
        model, images = chosen(5).eval(), torch.randn(2, *chosen.config.input_size)
    with quiet():
        write(unfused(model), images, folder / "model.onnx", 18, {})
        return largest_error(model, images, folder / "model.onnx")


@pytest.mark.parametrize("name", sorted(registry.plugins("architecture")))
def test_every_architecture_is_exported(name, tmp_path):
    tiny = registry.get("architecture", name).facts["tiny"] or {}
    assert exported_error(choose("architecture", name, **tiny), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_timm_are_exported(name, tmp_path):
    chosen = choose("architecture", "timm", model=name, **FAMILIES[name][0])
    assert exported_error(chosen, tmp_path) <= TOLERANCE
