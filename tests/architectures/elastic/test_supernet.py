"""Supernets: sub-networks of every size, their complexity, and how those of a step are drawn."""

from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.elastic.supernet import Member, Supernet, _hollow, common_part
from vitarium.architectures.patch_tokens import require_plain
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose, get

SIZES = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 12,
    "depth": 3,
    "num_heads": 3,
    "depths": (1, 2, 3),
    "embed_dims": (4, 8, 12),
    "mlp_ratios": (1.0, 2.0, 4.0),
}
FREE = SIZES | {"heads": (1, 2, 3)}


def build(**settings):
    model = create_model("supernet", num_classes=3, **FREE | settings)
    return random_moves.scrambled(model, 0).double()


def images():
    return torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(weights, member, x, channels=4, patch=4):
    """The outputs of a sub-network, from the formulas of a ViT and slices of the weights."""
    width, attended = member.embed_dim, member.num_heads * channels

    def linear(name, tokens, rows, columns):
        return (
            tokens @ weights[f"{name}.weight"][:rows, :columns].T + weights[f"{name}.bias"][:rows]
        )

    def normed(name, tokens):
        centered = tokens - tokens.mean(-1, keepdim=True)
        scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"][:width] + weights[f"{name}.bias"][:width]

    cut = x.unfold(2, patch, patch).unfold(3, patch, patch).flatten(2, 3).transpose(1, 2).flatten(2)
    kernel = weights["patch_embed.proj.weight"][:width].flatten(1)
    tokens = cut @ kernel.T + weights["patch_embed.proj.bias"][:width]
    prefix = weights["cls_token"][..., :width].expand(len(x), -1, -1)
    tokens = torch.cat([prefix, tokens], 1) + weights["pos_embed"][..., :width]
    for number in range(member.depth):
        at = f"blocks.{number}"
        inputs = normed(f"{at}.norm1", tokens)
        heads = []
        for head in range(member.num_heads):
            parts = []
            for part in range(3):
                start = part * 12 + head * channels
                rows = slice(start, start + channels)
                kernel = weights[f"{at}.attn.qkv.weight"][rows, :width]
                parts.append(inputs @ kernel.T + weights[f"{at}.attn.qkv.bias"][rows])
            query, key, value = parts
            logits = query @ key.transpose(1, 2) / channels**0.5
            heads.append(logits.softmax(-1) @ value)
        tokens = tokens + linear(f"{at}.attn.proj", torch.cat(heads, -1), width, attended)
        hidden = linear(f"{at}.mlp.fc1", normed(f"{at}.norm2", tokens), member.hidden, width)
        hidden = torch.nn.functional.gelu(hidden)
        tokens = tokens + linear(f"{at}.mlp.fc2", hidden, width, member.hidden)
    return linear("head", normed("norm", tokens)[:, 0], 3, width)


MEMBERS = choose("architecture", "supernet", **FREE).config.members()


@pytest.mark.parametrize("member", MEMBERS[::7], ids=str)
def test_a_sub_network_computes_what_its_slices_do(member):
    model = build().train()
    model.selected = member
    expected = by_hand(model.state_dict(), member, images())
    torch.testing.assert_close(model(images()), expected, rtol=0, atol=1e-11)


def test_in_eval_mode_it_is_the_plain_vit_whatever_was_selected():
    model = build()
    sizes = {name: SIZES[name] for name in list(SIZES)[:6]}
    plain = create_model("vit", num_classes=3, **sizes).double().eval()
    plain.load_state_dict(model.state_dict())
    model.selected = MEMBERS[0]
    assert torch.equal(model(images()), plain(images()))


def test_weights_outside_of_a_sub_network_do_not_learn():
    model = build().train()
    model.selected = Member(depth=2, embed_dim=8, num_heads=1, hidden=8)
    model(images()).square().sum().backward()
    assert all(p.grad is None for p in model.blocks[2].parameters())
    rows = model.blocks[1].attn.qkv.weight.grad.abs().sum(1) > 0
    assert rows.nonzero().flatten().tolist() == [*range(4), *range(12, 16), *range(24, 28)]
    assert not model.blocks[0].mlp.fc1.weight.grad[8:].any()
    assert not model.pos_embed.grad[..., 8:].any()
    assert model.head.weight.grad[:, :8].any(0).all()
    assert not model.head.weight.grad[:, 8:].any()


def test_what_its_symmetries_move_keeps_every_sub_network():
    model, other = build(), build()
    symmetries = get("architecture", "supernet").facts["symmetries"](model)
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(0))
    other.load_state_dict(moved(symmetries, model.state_dict(), moves))
    before, after = model.state_dict(), other.state_dict()
    # what writes the classes is all that has no unit to exchange
    assert [name for name in before if torch.equal(before[name], after[name])] == ["head.bias"]
    for member in MEMBERS[::5]:
        model.train().selected = other.train().selected = member
        torch.testing.assert_close(other(images()), model(images()), rtol=0, atol=1e-10)


def test_units_that_stand_in_one_sub_network_and_not_in_another_are_not_exchanged():
    symmetries = get("architecture", "supernet").facts["symmetries"](build())
    sizes = {name: group.size for name, group in symmetries.groups.items()}
    assert [sizes[f"stream.{n}"] for n in range(3)] == [4, 4, 4]
    assert [sizes[f"blocks.1.attn.heads.{n}"] for n in range(3)] == [1, 1, 1]
    hidden = sorted({member.hidden for member in MEMBERS})
    ends = [size for name, size in sizes.items() if name.startswith("blocks.1.mlp.")]
    assert ends == [b - a for a, b in pairwise((0, *hidden))]
    single = get("architecture", "supernet").facts["symmetries"](
        build(embed_dims=(12,), mlp_ratios=(4.0,), heads=None)
    )
    assert {"stream", "blocks.0.attn.heads", "blocks.0.mlp"} <= single.groups.keys()


def test_multiply_adds_are_those_that_torch_counts():
    config = choose("architecture", "supernet", **FREE).config
    model = build().train()
    for member in MEMBERS[::13]:
        model.selected = member
        for block in _hollow(config, member, 3).blocks:
            block.attn.fused_attn = False  # the fused one is not counted
        with FlopCounterMode(display=False) as counter:
            model(images()[:1])
        assert counter.get_total_flops() == 2 * (
            config.multiply_adds(member) + 3 * member.embed_dim
        )
    _hollow.cache_clear()


def test_members_are_all_sizes_from_the_smallest_to_the_whole():
    config = choose("architecture", "supernet", **FREE).config
    assert len(MEMBERS) == 3**4
    assert MEMBERS[0] == Member(1, 4, 1, 4)
    assert MEMBERS[-1] == config.largest == Member(3, 12, 3, 48)
    coupled = choose("architecture", "supernet", **SIZES).config.members()
    assert len(coupled) == 3**3
    assert all(member.num_heads * 4 == member.embed_dim for member in coupled)


def test_banks_are_ranges_of_complexity_that_have_every_member_once():
    config = choose("architecture", "supernet", **FREE, num_banks=4).config
    banks = config.banks()
    assert sorted(member for bank in banks for member in bank) == sorted(MEMBERS)
    costs = [[config.multiply_adds(member) for member in bank] for bank in banks]
    low, high = costs[0][0], costs[-1][-1]
    for number, bank in enumerate(costs):
        assert low + (high - low) * number / 4 <= min(bank)
        assert max(bank) <= low + (high - low) * (number + 1) / 4


def drawn(model, epoch, parts):
    model.sample(epoch, parts)
    members = []
    for part in range(parts):
        model.select(part)
        members.append(model.selected)
    return members


def test_the_parts_of_a_step_are_of_one_bank_and_the_last_is_inside_of_all_of_it():
    model = build()
    banks = model.config.banks()
    torch.manual_seed(0)
    for _ in range(60):
        *uniform, smallest = drawn(model, 1, 4)
        (bank,) = (bank for bank in banks if uniform[0] in bank)
        assert set(uniform) <= set(bank)
        assert smallest == common_part(bank)
        for member in bank:
            assert all(a <= b for a, b in zip(smallest, member, strict=True))


def test_the_walk_goes_to_neighbors_or_stays_and_begins_anew_in_each_epoch():
    model = build(num_banks=4)
    banks = model.config.banks()
    number_of = {member: number for number, bank in enumerate(banks) for member in bank}
    torch.manual_seed(0)
    walk = [number_of[drawn(model, 1, 1)[0]] for _ in range(1500)]
    steps = [after - before for before, after in pairwise(walk)]
    assert set(steps) == {-1, 0, 1}
    at_the_edge = [step for bank, step in zip(walk, steps, strict=False) if bank == 0]
    assert abs(at_the_edge.count(1) / len(at_the_edge) - 1 / 3) < 0.13  # five deviations
    assert set(walk) == {0, 1, 2, 3}
    starts = [number_of[drawn(model, epoch, 1)[0]] for epoch in range(2, 402)]
    assert all(abs(starts.count(bank) - 100) < 44 for bank in range(4))


def test_a_step_that_is_drawn_again_is_the_same():
    steps = []
    for _ in range(2):
        model = build()
        torch.manual_seed(5)
        steps.append([drawn(model, 1, 3) for _ in range(5)])
    assert steps[0] == steps[1]


def test_blocks_keep_their_rates_of_stochastic_depth():
    model = build(drop_path_rate=0.2).train()
    model.blocks[1].drop_path1.drop_prob = 0.7
    model.selected = Member(2, 8, 2, 16)
    rates = []
    model(images())
    for block in _hollow(model.config, model.selected, 3).blocks:
        rates.append(
            [getattr(block.drop_path1, "drop_prob", 0), getattr(block.drop_path2, "drop_prob", 0)]
        )
    assert rates == [[0, 0], [0.7, pytest.approx(0.1)]]


def test_what_needs_features_of_one_width_is_refused():
    model = build().train()
    with pytest.raises(InvalidInput, match="unlike SupernetTransformer"):
        require_plain(model, "hiding patches")
    model.selected = MEMBERS[0]
    with pytest.raises(InvalidInput, match="features of several widths"):
        model.forward_features(images())


@pytest.mark.parametrize("part", ["head", "adaptation"])
def test_weights_that_no_sub_network_has_are_refused(part):
    model = build()
    if part == "head":
        choose("head", "mlp", hidden_dim=4)(model, 3)
    else:
        choose("adaptation", "lora", rank=1)(model)
    with pytest.raises(InvalidInput, match="is in no sub-network, or missing here"):
        model.sample(1, 1)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"depths": (1, 2)}, r"depths \[1, 2\] have to rise, and end with depth 3"),
        ({"embed_dims": (8, 4, 12)}, "embed_dims .* have to rise"),
        ({"mlp_ratios": (2.0,)}, "mlp_ratios .* end with mlp_ratio 4"),
        ({"embed_dims": (6, 12)}, "embed_dims: 6 is no multiple of a head's 4 channels"),
        ({"heads": (1, 4)}, "heads .* end with num_heads 3"),
        ({"mlp_ratios": (0.1, 4.0)}, "mlp_ratios 0.1 leaves an MLP of width 4 no hidden unit"),
    ],
)
def test_sizes_that_make_no_supernet_are_refused(settings, fault):
    with pytest.raises(InvalidConfig, match=fault):
        Supernet.read(FREE | settings)
