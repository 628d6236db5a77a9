"""What training changed of a parent, beside what is known: ranks that were added, and adaptations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vitarium import Blueprint, Zoo, grow, recover, study
from vitarium.core.errors import InvalidInput
from vitarium.lineage._change_rank import change_rank
from vitarium.lineage.changes import describe_change

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1}
ARCHITECTURE |= {"embed_dim": 16, "depth": 2, "num_heads": 2}
BLOCK = "q, k, v, proj, fc1, fc2 of blocks 1"
VERDICTS = {
    "lora": ("low_rank", "low rank (r <= 2 in q, v of all blocks)"),
    "lora of a block": ("low_rank", "low rank (r <= 3 in k, fc1 of blocks 1)"),
    "explora": ("low_rank_and_full", f"low rank (r <= 2 in q, v of blocks 0), and full in {BLOCK}"),
    "last_blocks": ("layers", f"full in {BLOCK}"),
    "biases": ("biases", "biases"),
    "norms": ("norms", "norms"),
    "head": ("head", "head only"),
    "full": ("full", "full"),
}
SETTINGS = {
    "lora": {"name": "lora", "rank": 2},
    "lora of a block": {"name": "lora", "rank": 3, "matrices": ["k", "fc1"], "blocks": [1]},
    "explora": {"name": "explora", "rank": 2, "alpha": 2.0},
}
ROUNDED = ("lora", "explora", "norms", "full")
"""Whose checkpoints are kept in bfloat16, too."""
OUTCOMES = [*((name, "exact") for name in VERDICTS), *((name, "bf16") for name in ROUNDED)]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A zoo, and the ids of its children by adaptation and precision."""
    adaptations = [SETTINGS.get(name, name) for name in VERDICTS]
    shared = {"data": "digits", "batch_size": 128, "optimizer": {"name": "adamw", "lr": 0.01}}
    in_bf16 = [SETTINGS.get(name, name) for name in ROUNDED]
    stages = {
        "pretrain": {**shared, "architecture": ARCHITECTURE, "epochs": 1},
        "finetune": {
            **shared,
            "start": "pretrain",
            "epochs": 1,
            "grid": {"adaptation": adaptations},
        },
        "rounded": {
            **shared,
            "start": "pretrain",
            "epochs": 1,
            "checkpoint_precision": "bf16",
            "grid": {"adaptation": in_bf16},
        },
    }
    zoo = Zoo.create(tmp_path_factory.mktemp("changes") / "zoo")
    blueprint = Blueprint.read({"name": "changes", "stages": stages})
    grow(blueprint, zoo.path, stacked=1, precision="fp32", progress=False)
    names = {}
    for model in filter(lambda model: model.parent, zoo):
        recipe = model.spec.recipe
        values = recipe.adaptation.factors(defaults=False)
        (name,) = [n for n in VERDICTS if values == {"name": n} | SETTINGS.get(n, {})]
        names[name, recipe.checkpoint_precision] = model.id
    return zoo, names


def weights(grown, name, precision="exact"):
    zoo, ids = grown
    id = ids[name, precision]
    return zoo.state_dict(zoo.spec(id).parent), zoo.state_dict(id)


@pytest.mark.parametrize(("name", "precision"), OUTCOMES)
def test_adaptations_are_told_apart_by_what_they_changed(grown, name, precision):
    change = describe_change(*weights(grown, name, precision))
    assert (change.kind, str(change)) == VERDICTS[name]


@pytest.mark.parametrize("of", ["child", "both"])
@pytest.mark.parametrize("name", VERDICTS)
def test_rounding_to_bfloat16_misleads_nobody(grown, name, of):
    parent, child = weights(grown, name)
    child = {key: tensor.bfloat16() for key, tensor in child.items()}
    if of == "both":
        parent = {key: tensor.bfloat16() for key, tensor in parent.items()}
    change = describe_change(parent, child)
    assert change.kind in (VERDICTS[name][0], "unclear")
    if change.kind != "unclear":
        expected = describe_change(*weights(grown, name))
        assert all(rank in (None, expected.ranks[key]) for key, rank in change.ranks.items())
    else:
        assert str(change).startswith("cannot tell: rounding hides the rank of ")


def test_ranks_are_those_of_the_factors_and_of_numpy(grown):
    parent, child = weights(grown, "lora of a block")
    change = describe_change(parent, child)
    assert change.ranks == {("blocks.1.attn.qkv", "k"): 3, ("blocks.1.mlp.fc1", "fc1"): 3}
    for (layer, matrix), rank in change.ranks.items():
        rows = slice(16, 32) if matrix == "k" else slice(None)
        difference = (child[f"{layer}.weight"] - parent[f"{layer}.weight"])[rows]
        assert np.linalg.matrix_rank(difference.numpy(), tol=1e-5) == rank


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    rank=st.integers(1, 16),
    size=st.sampled_from([1e-3, 1e-1, 1.0]),
    wide=st.booleans(),
)
def test_the_rank_is_that_of_what_was_added(seed, rank, size, wide):
    noise = torch.Generator().manual_seed(seed)
    shape = (40, 96) if wide else (96, 40)
    matrix = torch.randn(*shape, generator=noise)
    up, down = (
        torch.randn(shape[0], rank, generator=noise),
        torch.randn(rank, shape[1], generator=noise),
    )
    after = matrix + size * up @ down
    assert change_rank(matrix.double().numpy(), after.double().numpy()) == (rank, True)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([1e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0]))
def test_a_full_change_is_never_taken_for_one_of_low_rank_in_bfloat16(seed, size):
    """With a spectrum that falls as those of trained models do, through the noise of rounding."""
    noise = torch.Generator().manual_seed(seed)
    matrix = torch.randn(96, 64, generator=noise)
    up, down = (torch.linalg.qr(torch.randn(n, 64, generator=noise))[0] for n in (96, 64))
    change = size * 64 * (up * 0.85 ** torch.arange(64)) @ down.T
    after = (matrix + change).bfloat16()
    rank, is_clear = change_rank(matrix.double().numpy(), after.double().numpy())
    assert rank is None
    assert is_clear or size < 1


def test_a_low_rank_in_bfloat16_is_counted_or_cannot_be_told():
    noise = torch.Generator().manual_seed(0)
    matrix = torch.randn(96, 64, generator=noise)
    up, down = torch.randn(96, 4, generator=noise), torch.randn(4, 64, generator=noise)
    for size, outcome in ((1.0, (4, True)), (0.1, (4, True)), (1e-4, (None, False))):
        after = (matrix + size * up @ down).bfloat16()
        assert change_rank(matrix.double().numpy(), after.double().numpy()) == outcome


def test_nothing_and_rounding_alone_are_no_change(grown):
    parent, _ = weights(grown, "full")
    assert str(describe_change(parent, parent)) == "nothing"
    trunk = {name: tensor for name, tensor in parent.items() if not name.startswith("head.")}
    for dtype in (torch.bfloat16, torch.float16):
        assert str(describe_change(trunk, {n: t.to(dtype) for n, t in trunk.items()})) == "nothing"


def test_what_was_added_is_counted(grown):
    zoo, ids = grown
    child = zoo.state_dict(ids["head", "exact"])
    prompted = child | {"blocks.0.prompts.tokens": torch.ones(5, 16)}
    change = describe_change(zoo.state_dict(zoo[ids["head", "exact"]].parent), prompted)
    assert (change.kind, change.added) == ("head", ["blocks.0.prompts.tokens"])
    assert str(change) == "head only, and 1 tensor added"


def test_what_cannot_be_compared_is_named(grown):
    parent, _ = weights(grown, "full")
    with pytest.raises(InvalidInput, match="no tensors in common"):
        describe_change(parent, {"other": torch.ones(2)})
    broken = parent | {"blocks.0.mlp.fc1.weight": torch.full((64, 16), torch.nan)}
    with pytest.raises(InvalidInput, match=r"the child: blocks\.0\.mlp\.fc1\.weight has numbers"):
        describe_change(parent, broken)


def test_a_zoo_and_a_folder_of_its_files_say_the_same(grown, tmp_path):
    zoo, ids = grown
    names = {id: name for (name, precision), id in ids.items() if precision == "exact"}
    parent = zoo.spec(next(iter(names))).parent
    names[parent] = "parent"
    for id, name in names.items():
        save_file(zoo.state_dict(id), tmp_path / f"{name.replace(' ', '-')}.safetensors")
    roots = {"roots": [parent]}
    of_zoo = recover(zoo, "nearest_root", models=list(names), **roots).forest.parents
    of_files = recover(tmp_path, "nearest_root", roots=["parent"]).forest.parents
    for id, name in names.items():
        if name in VERDICTS:
            assert of_zoo[id][parent].change == VERDICTS[name][1]
            assert of_files[name.replace(" ", "-")]["parent"].change == VERDICTS[name][1]


def test_the_study_has_a_column_of_it_and_lines_in_the_terminal(grown):
    zoo, ids = grown
    lora = ids["lora", "exact"]
    parent = zoo.spec(lora).parent
    tables = study(
        zoo,
        "lineage",
        models=[parent, lora, ids["biases", "exact"]],
        method="nearest_root",
        settings={"roots": [parent]},
        compare=[],
    )
    rows = tables["All models and their parents"].set_index("model")["change"]
    assert rows[lora] == VERDICTS["lora"][1]
    assert rows[ids["biases", "exact"]] == "biases"
    (line,) = [line for line in tables.tables.terminal if lora[:8] in line]
    assert f"[{VERDICTS['lora'][1]}]" in line


def test_where_it_were_too_much_to_read_a_note_says_so(grown, monkeypatch):
    zoo, ids = grown
    monkeypatch.setattr("vitarium.lineage.recover.MAX_DESCRIBED_NUMBERS", 10)
    forest = recover(
        zoo, models=[zoo.spec(ids["full", "exact"]).parent, ids["full", "exact"]]
    ).forest
    assert not any(edge.change for edge in forest.edges)
    assert any("what training changed" in note for note in forest.notes)
