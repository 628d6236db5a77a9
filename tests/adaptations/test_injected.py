"""Side networks that learn beside a frozen ViT."""

import copy
import pickle

import pytest
import torch

from vitarium import create_model
from vitarium.architectures.injected._base import TINY
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section

SIZES = {key: TINY[key] for key in ("img_size", "patch_size", "embed_dim", "depth", "num_heads")}
SIDE = {key: TINY[key] for key in ("interactions", "side_heads", "stem_width", "stem_stride")}
MODALITIES = {"network": "unirgb_ir", "second_modality_channels": 1}


def adapted(model, **settings):
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    section("adaptation", {"name": "injected", **SIDE, **settings})(model)
    return model.eval()


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return create_model("vit", num_classes=3, **SIZES).eval()


@pytest.mark.parametrize("settings", [{}, {"network": "vit_comer"}, MODALITIES])
def test_at_the_start_the_outputs_are_the_parents_bit_by_bit(plain, settings):
    images = torch.randn(2, 3, 16, 16)
    model = adapted(plain, **settings)
    assert torch.equal(model(images), plain(images))
    restored = pickle.loads(pickle.dumps(model))
    assert torch.equal(restored(images), plain(images))


def test_it_is_the_architecture_of_that_name(plain):
    model = adapted(plain, read_maps=True)
    architecture = create_model("vit_adapter", num_classes=3, **TINY, read_maps=True).eval()
    architecture.load_state_dict(model.state_dict())
    with torch.no_grad():
        for network in (model, architecture):
            for name, parameter in network.named_parameters():
                if name.endswith(("gamma", "scale")):
                    parameter.fill_(0.5)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), architecture(images))
    assert not torch.allclose(model(images), plain(images), atol=1e-3)


def test_a_step_changes_side_network_and_head_alone(plain):
    model = adapted(plain)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):  # at first gamma alone has a gradient
        optimizer.zero_grad()
        model(torch.randn(2, 3, 16, 16)).square().sum().backward()
        optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert all(name.startswith(("side.", "head.")) for name in changed)
    assert "side.injectors.0.reading.attention.value.weight" in changed
    assert all(p.grad is None for n, p in model.named_parameters() if n.startswith("blocks"))


def test_whether_the_backbone_learns_changes_nothing_else(plain):
    frozen, learning = adapted(plain), adapted(plain, backbone_learns=True)
    assert all(p.requires_grad for p in learning.parameters())
    tensors = learning.state_dict()
    assert tensors.keys() == frozen.state_dict().keys()
    assert all(torch.equal(tensors[name], t) for name, t in frozen.state_dict().items())


def test_a_side_network_that_the_model_has_learns():
    model = create_model("cellvta", num_classes=3, **TINY, side_ratio=0.5)
    names = list(model.state_dict())
    model = adapted(model, network=None)
    assert list(model.state_dict()) == names
    learning = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {"side", "head"}


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        ("vit", {"network": None}, "has no side network; name the `network`"),
        ("vit_adapter", {}, "already has a side network"),
        ("vit", {"side_heads": 5}, "not divisible by side_heads 5"),
        ("vit", {"interactions": 3}, "depth 2 is not divisible by interactions 3"),
        ("vit", {"network": "unirgb_ir"}, "leave nothing to the first modality of 3 channels"),
        ("spt_lsa", {}, "no patches that one convolution cuts out"),
    ],
)
def test_what_does_not_go_together_is_refused(architecture, settings, message):
    sizes = TINY if architecture == "vit_adapter" else SIZES
    with pytest.raises(InvalidInput, match=message):
        adapted(create_model(architecture, num_classes=3, **sizes), **settings)
