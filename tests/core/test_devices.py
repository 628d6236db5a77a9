"""Devices, and the one on which models take no memory."""

import pytest
import timm
import torch

from vitarium.core.devices import meta_device


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_a_model_without_memory_has_the_tensors_of_the_model(name: str) -> None:
    """Names, shapes, dtypes, in order; buffers too."""
    with meta_device():
        uninitialized = timm.create_model(name, pretrained=False)
    expected = timm.create_model(name, pretrained=False)
    for kind in ("named_parameters", "named_buffers"):
        tensors, others = (list(getattr(model, kind)()) for model in (uninitialized, expected))
        assert [(n, t.shape, t.dtype) for n, t in tensors] == [
            (n, t.shape, t.dtype) for n, t in others
        ]
        assert all(tensor.is_meta for _, tensor in tensors)


def test_random_numbers_are_those_of_before() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with meta_device():
        torch.nn.Linear(4, 4)
    assert torch.equal(torch.rand(3), expected)


def test_tensors_of_other_devices_have_their_values() -> None:
    with meta_device():
        tensor = torch.empty(3, device="cpu").fill_(1.5).mul_(2).add_(1).clamp_(max=3.5)
    assert tensor.tolist() == [3.5] * 3
    assert torch.empty(2).zero_().tolist() == [0, 0], "afterwards all is as before"
