"""MatViT: nested MLPs, what of them learns in a step, and the counts of the models inside."""

import pytest
import torch

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.registry import choose, get
from vitarium.operators.compression.matvit_member import MatvitMember, member_architecture

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "depth": 3, "num_heads": 2}
WIDTHS = (4, 8, 16, 32)


def build(**settings):
    torch.manual_seed(0)
    model = create_model("matvit", num_classes=3, **SIZES, **settings)
    return random_moves.scrambled(model, 0).double()


def images():
    return torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def select(model, units):
    """In training mode, with these hidden units in each block."""
    for block, count in zip(model.train().blocks, units, strict=True):
        block.mlp.units = count
    return model


def cut_by_hand(model, units):
    """A plain ViT whose MLPs have the first of the model's hidden units and nothing else."""
    plain = build().train()
    plain.load_state_dict(model.state_dict())
    for block, count in zip(plain.blocks, units, strict=True):
        first, second = block.mlp.fc1, block.mlp.fc2
        first.weight.data = first.weight.data[:count].clone()
        first.bias.data = first.bias.data[:count].clone()
        second.weight.data = second.weight.data[:, :count].clone()
    return plain


@pytest.mark.parametrize("act_layer", ["gelu", "silu"])
@pytest.mark.parametrize("units", [(4, 4, 4), (8, 8, 8), (16, 16, 16), (32, 32, 32), (4, 16, 32)])
def test_a_selected_width_is_the_model_cut_to_it(units, act_layer):
    model = build(act_layer=act_layer)
    plain = cut_by_hand(model, units)
    for block in plain.blocks:
        block.mlp.act = model.blocks[0].mlp.act
    outputs = select(model, units)(images())
    torch.testing.assert_close(outputs, plain(images()), rtol=0, atol=1e-12)


def test_in_eval_mode_it_is_the_plain_vit_whatever_was_selected():
    model = build()
    plain = create_model("vit", num_classes=3, **SIZES).double().eval()
    plain.load_state_dict(model.state_dict())
    select(model, (4, 4, 4)).eval()
    assert torch.equal(model(images()), plain(images()))


def test_a_hidden_unit_learns_with_the_widths_that_have_it_alone():
    model = build()
    for count in WIDTHS:
        model.zero_grad()
        select(model, [count] * 3)(images()).square().sum().backward()
        for block in model.blocks:
            mlp = block.mlp
            rows = (mlp.fc1.weight.grad, mlp.fc1.bias.grad[:, None], mlp.fc2.weight.grad.T)
            for gradient in rows:
                learns = gradient.abs().sum(1) > 0
                assert learns[:count].all()
                assert not learns[count:].any()


def test_a_step_of_a_width_leaves_the_units_behind_it():
    model = build()
    before = model.blocks[1].mlp.fc1.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    select(model, (8, 8, 8))(images()).square().sum().backward()
    optimizer.step()
    after = model.blocks[1].mlp.fc1.weight
    assert torch.equal(after[8:], before[8:])
    assert not torch.equal(after[:8], before[:8])


def test_widths_are_views_of_the_same_weights():
    model = build()
    mlp = model.blocks[0].mlp
    assert mlp.fc1.weight[:8].data_ptr() == mlp.fc1.weight.data_ptr()
    assert len(list(model.parameters())) == len(list(create_model("vit", **SIZES).parameters()))


def test_parts_of_a_batch_have_all_widths_before_one_comes_again():
    model = build()
    orders = set()
    for seed in range(20):
        torch.manual_seed(seed)
        model.sample(1, 8)
        units = []
        for part in range(8):
            model.select(part)
            (width,) = {block.mlp.units for block in model.blocks}
            units.append(width)
        assert sorted(units[:4]) == list(WIDTHS)
        assert units[4:] == units[:4]
        orders.add(tuple(units))
    assert len(orders) > 5


def test_each_width_is_drawn_as_often():
    model, counts = build(), dict.fromkeys(WIDTHS, 0)
    torch.manual_seed(0)
    for _ in range(800):
        model.sample(1, 1)
        model.select(0)
        counts[model.blocks[0].mlp.units] += 1
    assert all(abs(count - 200) < 65 for count in counts.values())  # five deviations


def test_adapted_mlps_have_the_widths_of_what_they_compute():
    model = build()
    adapt = choose("adaptation", "lora", rank=2, matrices=("fc1", "fc2"))
    adapt(model)
    for name, parameter in model.named_parameters():
        if "adaptation" in name:
            parameter.data = 0.3 * torch.randn_like(parameter)
    outputs = select(model, (4, 8, 16))(images())
    merged = build()
    merged.load_state_dict({n: t for n, t in model.state_dict().items() if "adaptation" not in n})
    for block, adapted in zip(merged.blocks, model.blocks, strict=True):
        for name in ("fc1", "fc2"):
            layer = getattr(adapted.mlp, name)
            getattr(block.mlp, name).weight.data += layer.adaptation.change()
    expected = select(merged, (4, 8, 16))(images())
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)


def test_what_its_symmetries_move_keeps_every_width():
    model = build()
    symmetries = get("architecture", "matvit").facts["symmetries"](model)
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(0))
    weights = moved(symmetries, model.state_dict(), moves)
    other = build()
    other.load_state_dict(weights)
    assert not torch.equal(weights["blocks.0.mlp.fc1.weight"], model.blocks[0].mlp.fc1.weight)
    sizes = [group.size for name, group in symmetries.groups.items() if "0.mlp" in name]
    assert sizes == [4, 4, 8, 16]  # between two widths units are exchanged
    for count in WIDTHS:
        expected, outputs = (select(m, [count] * 3)(images()) for m in (model, other))
        torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("preset", "counts"),
    [
        ("matvit_tiny_patch16_224", (2_612_776, 3_056_296, 3_943_336, 5_717_416)),
        ("matvit_small_patch16_224", (9_648_232, 11_420_008, 14_963_560, 22_050_664)),
        ("matvit_base_patch16_224", (36_990_184, 44_072_680, 58_237_672, 86_567_656)),
    ],
)
def test_models_inside_the_published_sizes_have_their_numbers_of_parameters(preset, counts):
    settings = get("architecture", "matvit").facts["presets"][preset]
    full = choose("architecture", "matvit", **settings)
    for granularity, expected in zip((0.125, 0.25, 0.5, 1.0), counts, strict=True):
        member = member_architecture(MatvitMember(granularity=granularity), full)
        with meta_device():
            assert sum(p.numel() for p in member(1000).parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"granularities": (0.5, 0.25, 1.0)}, "have to rise, and end with 1"),
        ({"granularities": (0.25, 0.5)}, "have to rise, and end with 1"),
        ({"granularities": (0.1, 1.0), "embed_dim": 24}, "granularity 0.1 of 96 hidden units"),
    ],
)
def test_granularities_that_are_none_are_refused(settings, fault):
    with pytest.raises(InvalidConfig, match=fault):
        choose("architecture", "matvit", **settings)
