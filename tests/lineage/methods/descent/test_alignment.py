"""Copies with their units in another order are brought into one order, and nothing else is moved."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitarium import create_model
from vitarium.architectures.symmetries.base import moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.blueprint import Imported
from vitarium.core.devices import meta_device
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.lineage._clusters import families_by_angle
from vitarium.lineage.base import ModelSet
from vitarium.lineage.methods.descent._alignment import AlignedModels, align_units

VIT = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "depth": 2, "num_heads": 3}


def built() -> nn.Module:
    with meta_device():
        return create_model("vit", num_classes=10, **VIT)


SYMMETRIES = vit_symmetries(built())
TRUNK = [name for name in built().state_dict() if not name.startswith("head")]


def random(seed: int) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    shapes = {name: tensor.shape for name, tensor in built().state_dict().items()}
    return {
        name: 0.2 * torch.randn(shape, generator=noise) + ("norm" in name and "weight" in name)
        for name, shape in shapes.items()
    }


def trained(tensors, seed: int, step: float = 0.05):
    noise = torch.Generator().manual_seed(seed)
    return {n: t + step * torch.randn(t.shape, generator=noise) for n, t in tensors.items()}


def shuffled(tensors, seed: int, only: str = ""):
    """With the units of every group whose name has `only` in it in a random order."""
    noise = torch.Generator().manual_seed(seed)
    moves = {}
    for name, group in SYMMETRIES.groups.items():
        if only in name:
            count = SYMMETRIES.groups[group.inside].size if group.inside else 1
            orders = [torch.randperm(group.size, generator=noise) for _ in range(count)]
            moves[name] = torch.stack(orders) if group.inside else orders[0]
    return moved(SYMMETRIES, tensors, moves)


def model_set(*tensors, with_skeleton: bool = True) -> ModelSet:
    more = {"skeleton": built} if with_skeleton else {}
    return ModelSet(
        [Weights(f"m{number}", weights, **more) for number, weights in enumerate(tensors)], TRUNK
    )


def aligned_families(models: ModelSet) -> AlignedModels:
    """As the method aligns them: groups are families by angle."""
    labels = families_by_angle(models)
    return align_units(models, [np.flatnonzero(labels == n).tolist() for n in np.unique(labels)])


def distance(a, b) -> float:
    return sum((a[n] - b[n]).square().sum().item() for n in TRUNK) ** 0.5


@pytest.mark.parametrize("with_skeleton", [True, False])
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_a_rearranged_copy_is_brought_back_exactly(with_skeleton, seed):
    parent = random(seed)
    aligned = aligned_families(
        model_set(parent, trained(parent, 1), shuffled(parent, seed), with_skeleton=with_skeleton)
    )
    assert aligned.permuted == {"m2": "m0"}
    assert aligned.model_set.names == ["m0", "m1", "m2"]
    assert distance(aligned.model_set.models[2], parent) == 0


@pytest.mark.parametrize("with_skeleton", [True, False])
def test_relatives_of_a_rearranged_model_are_moved_together(with_skeleton):
    parent = random(0)
    rearranged = shuffled(parent, 1)
    plain = [trained(parent, seed) for seed in range(2, 6)]
    family = [trained(rearranged, seed) for seed in range(6, 9)]
    aligned = aligned_families(
        model_set(*plain, *family, parent, rearranged, with_skeleton=with_skeleton)
    )
    assert aligned.permuted.keys() == {"m4", "m5", "m6", "m8"}
    assert set(aligned.permuted.values()) == {"m7"}
    assert distance(aligned.model_set.models[8], parent) == 0
    size = sum(parent[name].numel() for name in TRUNK)
    for child, before in zip(aligned.model_set.models[4:7], family, strict=True):
        assert distance(child, parent) == pytest.approx(0.05 * size**0.5, rel=0.1)
        assert distance(before, parent) > 3 * distance(child, parent)


def test_each_model_may_stand_in_an_order_of_its_own():
    parent = random(0)
    children = [shuffled(trained(parent, seed), seed + 10) for seed in range(1, 5)]
    aligned = aligned_families(model_set(parent, *children))
    assert len(aligned.permuted) == 4
    models = aligned.model_set.models
    nearest = [min(distance(m, o) for o in models if o is not m) for m in models]
    unrelated = distance(random(1), random(2))
    assert max(nearest) < unrelated / 2


@pytest.mark.parametrize("only", ["stream", "heads", ".vo", ".qk", "blocks.1.mlp"])
def test_units_of_one_kind_alone_are_found_too(only):
    parent = random(0)
    child = trained(parent, 1)
    models = model_set(parent, shuffled(child, 2, only), trained(parent, 3))
    aligned = align_units(models, [[0, 2], [1]])
    assert aligned.permuted.keys() == {"m1"}
    assert distance(aligned.model_set.models[1], child) == 0


def test_where_nothing_is_rearranged_the_set_stays_as_it_is():
    parent, unrelated = random(0), random(1)
    models = model_set(parent, trained(parent, 2), unrelated, trained(unrelated, 3), random(4))
    aligned = aligned_families(models)
    assert aligned.model_set is models
    assert aligned.permuted == {}
    assert aligned.notes == ()


def test_one_family_is_not_even_asked_what_its_symmetries_are():
    parent = random(0)
    models = [Weights(f"m{n}", {"odd": trained(parent, n)["pos_embed"][0]}) for n in range(3)]
    aligned = aligned_families(ModelSet(models, ["odd"]))
    assert aligned.notes == ()
    assert aligned.permuted == {}


def test_unrelated_models_stay_as_they_are_beside_a_rearranged_one():
    parent, unrelated = random(0), random(1)
    weights = [parent, trained(parent, 2), shuffled(parent, 3), unrelated, shuffled(random(4), 5)]
    aligned = aligned_families(model_set(*weights))
    assert aligned.permuted.keys() == {"m2"}
    for number in (0, 1, 3, 4):
        assert distance(aligned.model_set.models[number], weights[number]) == 0


def test_heads_and_what_else_is_not_compared_stay_as_they_are():
    parent = random(0)
    model = aligned_families(
        model_set(parent, trained(parent, 1), shuffled(parent, 2))
    ).model_set.models[2]
    assert model["head.weight"].equal(shuffled(parent, 2)["head.weight"])
    assert model.shapes == {name: tuple(tensor.shape) for name, tensor in parent.items()}
    assert model.skeleton.num_classes == 10


def test_groups_can_be_given():
    parent = random(0)
    models = model_set(
        parent, trained(parent, 1), shuffled(parent, 2), trained(shuffled(parent, 2), 3)
    )
    aligned = align_units(models, [[0, 1], [2, 3]])
    assert aligned.permuted.keys() == {"m2", "m3"}
    assert "statistics" not in models.__dict__  # distances of all pairs were not needed


@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**31))
def test_the_order_of_models_means_nothing(seed):
    parent = random(0)
    original = model_set(
        parent, trained(parent, 1), shuffled(parent, 2), shuffled(trained(parent, 1), 3)
    )
    order = np.random.default_rng(seed).permutation(4)
    reordered = ModelSet([original.models[index] for index in order], TRUNK)
    assert aligned_families(reordered).permuted == aligned_families(original).permuted


VARIANTS = {
    "layer scales": {"init_values": 0.1},
    "no biases": {"qkv_bias": False},
    "registers, no class token": {"class_token": False, "reg_tokens": 2, "global_pool": "avg"},
    "normed queries": {"qk_norm": True},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_plain_files_of_timm_models_are_recognised_by_their_tensors(options):
    model = VisionTransformer(**VIT, num_classes=3, **options)
    names = [name for name in model.state_dict() if not name.startswith("head")]
    parent = trained(model.state_dict(), 0, 0.2)
    symmetries = vit_symmetries(model)
    moves = {"stream": torch.randperm(24, generator=torch.Generator().manual_seed(0))}
    moves["blocks.0.attn.heads"] = torch.tensor([2, 0, 1])
    models = [parent, trained(parent, 1), moved(symmetries, parent, moves)]
    aligned = aligned_families(
        ModelSet([Weights(f"m{n}", weights) for n, weights in enumerate(models)], names)
    )
    assert aligned.permuted == {"m2": "m0"}
    assert all(aligned.model_set.models[2][name].equal(parent[name]) for name in names)


def test_models_whose_symmetries_are_not_known_are_left_alone_with_a_note():
    models = ModelSet([Weights(f"m{n}", {"w": random(n)["pos_embed"][0]}) for n in range(3)], ["w"])
    aligned = aligned_families(models)
    assert aligned.model_set is models
    (note,) = aligned.notes
    assert "patch_embed.proj.weight" in note


def test_units_of_another_architecture_are_those_that_it_declares():
    """Whose queries, keys and values are no linear layer."""
    architecture = choose("architecture", "structured_vit", structure="low_rank", **VIT)
    with meta_device():
        skeleton = architecture(10)
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        about = {"source": "test", "name": f"m{seed}", "weights": "0", "architecture": architecture}
        about = {"skeleton": lambda: skeleton, "origin": Imported(**about)}
        models.append(Weights(f"m{seed}", architecture(10).state_dict(), **about))
    names = [name for name in models[0] if not name.startswith("head")]
    aligned = align_units(ModelSet(models, names), [[0], [1]])
    assert aligned.permuted == {}
    assert aligned.notes == ()
