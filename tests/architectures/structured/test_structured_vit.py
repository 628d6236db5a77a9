"""The vision transformer with structured layers: sizes, rates, settings, symmetries, stacks."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from reference import random_moves
from vitarium import Blueprint, create_model, plan
from vitarium.architectures.structured._linear import StructuredLinear
from vitarium.architectures.structured._symmetries import StructuredDeclaration
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.registry import section
from vitarium.training import stack_key
from vitarium.training.parameter_groups import parameter_groups

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2}
GREEDY = {"embed_pair": (8, 24), "hidden_pair": (16, 48)}


def small(seed=0, **factors):
    torch.manual_seed(seed)
    return create_model("structured_vit", num_classes=3, **{**SIZES, **factors})


def cores(model):
    return {n: p for n, p in model.named_parameters() if n.rpartition(".")[2].startswith("core")}


@pytest.mark.parametrize(
    ("width", "factors", "count"),
    [
        (192, {}, 53_760),
        (192, GREEDY, 61_440),
        (192, {"structure": "monarch"}, 165_888),
        (192, {"structure": "monarch", "num_blocks": 16}, 41_472),
        (192, {"structure": "low_rank"}, 48_384),
        (384, {}, 153_600),
        (384, {"structure": "monarch"}, 663_552),
        (384, {"structure": "monarch", "num_blocks": 16}, 165_888),
        (384, {"structure": "low_rank"}, 138_240),
    ],
)
def test_a_layer_of_deit_has_the_published_number_of_weights(width, factors, count):
    with meta_device():
        model = create_model("structured_vit", embed_dim=width, depth=1, num_heads=4, **factors)
    assert sum(core.numel() for core in cores(model).values()) == count


@pytest.mark.parametrize(
    ("width", "factors", "count"),
    [
        (192, GREEDY, 6_144),
        (192, {}, 5_376),
        (384, {}, 15_360),
        (768, GREEDY | {"embed_pair": (16, 48), "hidden_pair": (48, 64)}, 49_152),
        (768, {}, 43_008),
    ],
)
def test_a_square_block_tensor_train_has_the_published_number_of_weights(width, factors, count):
    with meta_device():
        model = create_model("structured_vit", embed_dim=width, depth=1, num_heads=4, **factors)
    assert sum(t.numel() for n, t in cores(model).items() if "attn.proj" in n) == count


def test_presets_have_the_published_widths_and_fewer_weights_than_dense_ones():
    with meta_device():
        model = create_model("btt1_vit_784_patch32_224", depth=1)
        cut = create_model("monarch16_vit_280_patch32_224", depth=1)
    assert model.embed_dim == 784
    assert model.blocks[0].mlp.fc1.core_in.shape == (28, 28, 56)
    assert cut.blocks[0].mlp.fc2.core_in.shape == (16, 18, 70)


def test_layers_that_are_not_chosen_stay_dense():
    model = small(structured_layers=["fc1", "k"])
    structured = [n for n, m in model.named_modules() if isinstance(m, StructuredLinear)]
    assert structured == [f"blocks.{i}.{n}" for i in (0, 1) for n in ("attn.qkv.k", "mlp.fc1")]
    assert type(model.blocks[0].attn.qkv.q) is nn.Linear
    assert type(model.blocks[0].attn.proj) is nn.Linear
    assert type(small(structured_layers=["proj"]).blocks[0].attn.qkv) is nn.Linear


def test_the_order_of_the_layers_is_no_factor():
    orders = [["k", "q"], ["q", "k"]]
    chosen = [
        section("architecture", {"name": "structured_vit", "structured_layers": o}) for o in orders
    ]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("structure", ["low_rank", "monarch", "btt", "kronecker"])
def test_with_dense_matrices_it_is_the_plain_vit(structure):
    model = small(structure=structure, zero_init=False).double().eval()
    plain = create_model("vit", num_classes=3, **SIZES).double().eval()
    weights = {n: t for n, t in model.state_dict().items() if n in plain.state_dict()}
    for block in range(2):
        at = f"blocks.{block}"
        layers = {n: model.get_submodule(f"{at}.{n}") for n in ("attn.proj", "mlp.fc1", "mlp.fc2")}
        parts = [model.get_submodule(f"{at}.attn.qkv.{letter}") for letter in "qkv"]
        weights |= {f"{at}.{name}.weight": dense(layer) for name, layer in layers.items()}
        weights[f"{at}.attn.qkv.weight"] = torch.cat([dense(part) for part in parts])
        weights[f"{at}.attn.qkv.bias"] = torch.cat([part.bias for part in parts])
    plain.load_state_dict(weights)
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(model(images), plain(images), rtol=0, atol=1e-12)


def dense(layer):
    return layer.matrix({name: getattr(layer, name).detach() for name in layer.factor_names})


def test_queries_projections_and_second_layers_start_at_zero():
    model = small()
    zero = {
        n
        for n, m in model.named_modules()
        if isinstance(m, StructuredLinear) and not dense(m).any()
    }
    assert zero == {
        f"blocks.{i}.{n}" for i in (0, 1) for n in ("attn.qkv.q", "attn.proj", "mlp.fc2")
    }
    assert all(core.any() for core in cores(small(zero_init=False)).values())


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"rank": 9}, r"rank 9 is more than 4, with which q is not limited"),
        ({"structure": "monarch", "rank": 2}, "follow from num_blocks"),
        ({"structure": "monarch", "num_blocks": 17}, "num_blocks 17 is more than"),
        ({"num_blocks": 4}, "num_blocks is of monarch; leave it out of btt"),
        ({"embed_pair": [3, 5]}, r"embed_pair \[3, 5\] are no factors of 16"),
        ({"structure": "low_rank", "hidden_pair": [8, 8]}, "hidden_pair is of btt and kronecker"),
        ({"structured_layers": ["q", "q"]}, "name a layer twice"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(factors, message):
    with pytest.raises(InvalidConfig, match=message):
        small(**factors)


def recipe_of(tiny, **architecture):
    stage = tiny["stages"]["pretrain"]
    factors = {**SIZES, "name": "structured_vit", **architecture}
    tiny["stages"] = {"pretrain": {**stage, "architecture": factors}}
    return plan(Blueprint.read(tiny)).models[0]


def test_the_optimizer_has_the_rates_of_the_cores(tiny):
    spec = recipe_of(tiny, base_dim=8, structured_layers=["fc1"])
    model = small(base_dim=8, structured_layers=["fc1"])
    rates = {
        id(p): group["rate"]
        for group in parameter_groups(model, spec.recipe)
        for p in group["params"]
    }
    mlp = model.blocks[0].mlp
    assert rates[id(mlp.fc1.core_in)] == 16 / 4 / 2 * 8 / 16
    assert rates[id(mlp.fc1.core_out)] == 16 / 4 / 2 * 8 / 16
    assert rates[id(mlp.fc2.weight)] == rates[id(model.head.weight)] == 8 / 16
    assert rates[id(mlp.fc1.bias)] == rates[id(model.pos_embed)] == 1
    assert rates[id(model.patch_embed.proj.weight)] == 1
    assert len(rates) == len(list(model.parameters()))


def test_models_with_rates_of_their_own_are_trained_singly(tiny):
    assert stack_key(recipe_of(tiny)) is None
    assert stack_key(recipe_of(tiny, lr_rule="equal")) is not None
    assert stack_key(recipe_of(tiny, lr_rule="equal", base_dim=8)) is None


@pytest.mark.parametrize("structure", ["low_rank", "monarch", "btt", "kronecker"])
def test_a_stack_computes_what_each_model_does(structure):
    models = [small(seed, structure=structure, normalize_cores=True).double() for seed in (1, 2)]
    weights, buffers = stack_module_state(models)
    images = torch.randn(2, 3, 1, 8, 8, dtype=torch.float64)

    def forward(weights, buffers, images):
        return functional_call(models[0], (weights, buffers), (images,))

    stacked = vmap(forward)(weights, buffers, images)
    for model, outputs, own in zip(models, stacked, images, strict=True):
        torch.testing.assert_close(outputs, model(own), rtol=0, atol=1e-12)


SYMMETRIC = {
    "low rank": ({"structure": "low_rank"}, {"stream", "blocks.0.attn.qk", "blocks.0.attn.qkv.q.rank", "blocks.0.mlp"}),
    "normalized low rank": ({"structure": "low_rank", "normalize_cores": True}, {"stream", "blocks.0.mlp.fc1.rank"}),
    "low rank beside dense": ({"structure": "low_rank", "structured_layers": ["proj", "fc2"]}, {"stream", "blocks.0.attn.vo", "blocks.0.mlp.fc2.rank"}),
    "one block cut": ({"mlp_ratio": 4, "hidden_pair": (8, 8), "rank": 2}, {"blocks.0.mlp", "blocks.0.mlp.inner"}),
    "a dense second layer": ({"structured_layers": ["fc1"], "hidden_pair": (4, 16)}, {"blocks.0.mlp.inner", "blocks.0.attn.vo"}),
    "Kronecker sums": ({"structure": "kronecker", "rank": 2}, {"blocks.0.mlp", "blocks.0.mlp.inner", "blocks.0.attn.proj.rank"}),
    "other cuts": ({"hidden_pair": (4, 16)}, set()),
    "monarch": ({"structure": "monarch"}, set()),
    "monarch beside dense": ({"structure": "monarch", "structured_layers": ["fc2"]}, {"blocks.0.attn.heads"}),
}  # fmt: skip


SYMMETRIC |= {
    "cosines": (
        {"structure": "low_rank", "attention": "cosine", "init_values": 0.1},
        {"stream", "blocks.0.attn.qk"},
    ),
    "normed queries": (
        {"structure": "low_rank", "attention": "qk_norm"},
        {"blocks.0.attn.heads", "blocks.0.attn.vo"},
    ),
    "cosines of block tensor trains": (
        {"attention": "cosine", "init_values": 0.1},
        {"blocks.0.mlp.inner"},
    ),
}


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_what_is_declared_to_change_nothing_changes_nothing(name, mix):
    factors, groups = SYMMETRIC[name]
    model = random_moves.scrambled(small(**factors), 0).double()
    symmetries = StructuredDeclaration.symmetries(model)
    assert groups <= set(symmetries.groups)
    assert bool(groups) == bool(symmetries.groups)
    weights = {n: t.clone() for n, t in model.state_dict().items()}
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(0), mix=mix)
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    expected = model(images)
    changed = moved(symmetries, weights, moves)
    assert any(not torch.equal(changed[n], t) for n, t in weights.items()) == bool(groups)
    model.load_state_dict(changed)
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-9)
