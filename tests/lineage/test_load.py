"""Sets of models: what is compared with what, what is left out, and what is known of it."""

import itertools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vitarium import export, merge
from vitarium.core.errors import InvalidInput, NotAZoo
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.load import MIN_COMMON_SHARE, first_non_finite, load, split_by_tensors

VIT = {
    "pos_embed": (1, 5, 4),
    "blocks.0.qkv.weight": (12, 4),
    "blocks.1.qkv.weight": (12, 4),
    "norm.weight": (4,),
}
TENSORS = sorted(VIT)
HEAD = {"head.weight": (3, 4), "head.bias": (3,)}


def weights(seed=0, shapes=VIT, **more):
    noise = torch.Generator().manual_seed(seed)
    shapes = {**shapes, **{name.replace("__", "."): shape for name, shape in more.items()}}
    return {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}


def without(*parts):
    return {n: s for n, s in VIT.items() if not any(part in n for part in parts)}


def write(folder, **models):
    for name, tensors in models.items():
        save_file(tensors, folder / f"{name}.safetensors")


def model_sets(loaded):
    return [model_set.names for model_set in loaded.model_sets]


# Folders of files


def test_models_of_a_folder_are_one_set_whose_tensors_are_the_trunks(tmp_path):
    write(tmp_path, b=weights(1, VIT | HEAD))
    torch.save(weights(2, VIT | HEAD), tmp_path / "a.pt")
    loaded = load(tmp_path)
    assert model_sets(loaded) == [["a", "b"]]
    assert loaded.models == ["a", "b"]
    assert loaded.model_sets[0].tensors == TENSORS
    assert loaded.model_sets[0].shapes == VIT
    assert loaded.shared == [1.0]
    assert loaded.truth is None
    assert not loaded.left_out
    assert loaded.info == {"a": {"file": "a.pt"}, "b": {"file": "b.safetensors"}}


def test_the_evidence_of_files_is_that_of_their_tensors(tmp_path):
    tensors_by_name = {name: weights(seed, VIT | HEAD) for seed, name in enumerate("abc")}
    write(tmp_path, **tensors_by_name)
    flat = np.stack(
        [
            torch.cat([t[n].flatten() for n in VIT]).double().numpy()
            for t in tensors_by_name.values()
        ]
    )
    assert load(tmp_path).model_sets[0].statistics.gram() == pytest.approx(flat @ flat.T, rel=1e-9)


def test_heads_may_have_any_shape_or_be_missing(tmp_path):
    write(
        tmp_path,
        a=weights(0, VIT | HEAD),
        b=weights(1, VIT, head__weight=(9, 4)),
        c=weights(2, VIT, fc__0__weight=(7, 4), fc__2__weight=(3, 7)),
        d=weights(3),
    )
    loaded = load(tmp_path)
    assert model_sets(loaded) == [list("abcd")]
    assert loaded.model_sets[0].tensors == TENSORS
    assert loaded.shared == [1.0]


def test_where_layers_are_missing_the_common_ones_are_compared_and_it_is_said_how_much(tmp_path):
    write(tmp_path, a=weights(0), b=weights(1), c=weights(2, without("blocks.1")))
    loaded = load(tmp_path)
    assert model_sets(loaded) == [["a", "b", "c"]]
    assert loaded.model_sets[0].tensors == sorted(without("blocks.1"))
    assert loaded.shared == [pytest.approx((20 + 48 + 4) / (20 + 48 + 48 + 4))]


def test_tensors_of_another_shape_are_not_compared(tmp_path):
    write(tmp_path, a=weights(0), b=weights(1, VIT, pos_embed=(1, 10, 4)))
    loaded = load(tmp_path)
    assert loaded.model_sets[0].tensors == sorted(without("pos_embed"))
    assert loaded.shared == [pytest.approx(100 / (100 + 40))]


def test_mixed_architectures_are_split_the_larger_set_first(tmp_path):
    wide = {name: (*shape[:-1], 9 * shape[-1]) for name, shape in VIT.items()}
    write(tmp_path, z1=weights(1), z2=weights(2), z3=weights(3))
    write(tmp_path, a1=weights(1, wide), a2=weights(2, wide))
    write(tmp_path, c=weights(0, {"other": (3, 3)}), b=weights(0, {"another": (3, 3)}))
    loaded = load(tmp_path)
    assert model_sets(loaded) == [["z1", "z2", "z3"], ["a1", "a2"], ["b"], ["c"]]
    assert loaded.shared == [1, 1, 1, 1]


def test_a_model_with_too_little_in_common_is_a_set_of_its_own(tmp_path):
    write(tmp_path, a=weights(0), b=weights(1), c=weights(2, without("blocks")))
    loaded = load(tmp_path)
    assert model_sets(loaded) == [["a", "b"], ["c"]]
    assert loaded.shared == [1, 1]


def test_tensors_come_in_the_order_of_their_numbers(tmp_path):
    shapes = {f"blocks.{number}.w": (2,) for number in (10, 9, 2, 0)} | {"a.w": (1,)}
    write(tmp_path, a=weights(0, shapes), b=weights(1, shapes))
    assert load(tmp_path).model_sets[0].tensors == [
        "a.w",
        *(f"blocks.{n}.w" for n in (0, 2, 9, 10)),
    ]


def test_wrapped_names_meet_plain_ones(tmp_path):
    write(tmp_path, a=weights(0, VIT | HEAD))
    wrapped = {f"module.{name}": tensor for name, tensor in weights(1, VIT | HEAD).items()}
    torch.save({"state_dict": wrapped, "epoch": 1}, tmp_path / "b.pth")
    assert model_sets(load(tmp_path)) == [["a", "b"]]
    assert load(tmp_path).shared == [1]


def test_what_cannot_be_read_or_compared_is_named_and_the_rest_is_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    write(
        tmp_path,
        a=weights(0),
        b=weights(1),
        whole={"steps": torch.ones(3, dtype=torch.int64)},
        only_head=weights(0, HEAD),
    )
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    (tmp_path / "cut.safetensors").write_bytes(b"\0cut")
    loaded = load(tmp_path)
    assert model_sets(loaded) == [["a", "b"]]
    assert not (tmp_path / "ran").exists()
    assert list(loaded.left_out) == ["cut", "evil", "only_head", "whole"]
    assert "it would run code" in loaded.left_out["evil"].replace("reading it", "it")
    assert "corrupt file" in loaded.left_out["cut"]
    assert loaded.left_out["whole"] == "it has no tensors of real numbers"
    assert loaded.left_out["only_head"] == "it has no tensors of real numbers but those of a head"


def test_fewer_than_two_models_are_an_error_that_says_what_was_found(tmp_path):
    write(tmp_path, a=weights(0))
    (tmp_path / "cut.pt").write_bytes(b"\0cut")
    with pytest.raises(
        InvalidInput, match=r"two models or more and there is one, a\n  cut was left"
    ):
        load(tmp_path)
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(InvalidInput, match=r"and there is none\n  cut was left out: "):
        load(tmp_path)
    for number in range(9):
        (tmp_path / f"cut{number}.pt").write_bytes(b"\0cut")
    with pytest.raises(InvalidInput, match="and 5 more"):
        load(tmp_path)


def test_a_place_without_models_is_an_error_that_says_what_is_looked_for(tmp_path):
    with pytest.raises(InvalidInput, match=r"neither a zoo .* nor a folder with .*\.safetensors"):
        load(tmp_path)
    with pytest.raises(InvalidInput, match="none is not there"):
        load(tmp_path / "none")
    (tmp_path / "file.pt").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=r"file.pt is a file; name the folder"):
        load(tmp_path / "file.pt")
    (tmp_path / "zoo.json").write_text("{}")
    with pytest.raises(NotAZoo):
        load(tmp_path)


def test_conditions_and_epochs_are_for_zoos(tmp_path):
    write(tmp_path, a=weights(0), b=weights(1))
    for wrong in ({"where": "stage = 'x'"}, {"epochs": "all"}, {"models": ["3f2a"]}):
        with pytest.raises(
            InvalidInput, match="not a zoo: models, conditions, epochs are for zoos"
        ):
            load(tmp_path, **wrong)


def test_the_truth_of_a_folder_is_what_its_table_says_of_what_was_read(tmp_path):
    write(tmp_path, a=weights(0), c=weights(1))
    (tmp_path / "b.safetensors").write_bytes(b"\0cut")
    (tmp_path / "lineage.csv").write_text("model,parent\na,\nb,a\nc,b\n")
    assert load(tmp_path).truth == {"a": (), "c": ("a",)}


def test_long_work_is_reported(tmp_path, steps):
    write(tmp_path, a=weights(0), b=weights(1))
    loaded = load(tmp_path, progress=steps)
    assert steps == [("opening files", 0, 2), ("opening files", 1, 2)]
    assert loaded.model_sets[0].statistics
    assert len(steps) > 2


# Model sets


@settings(deadline=None, max_examples=60)
@given(data=st.data(), count=st.integers(1, 7))
def test_sets_depend_neither_on_order_nor_on_names_and_leave_enough_of_every_model(data, count):
    parts = {"w": (4, 5), "v": (3, 5), "u": (8,), "t": (2, 2), "s": (1,)}
    models = []
    for number in range(count):
        names = data.draw(st.sets(st.sampled_from(sorted(parts)), min_size=1))
        shapes = {n: parts[n] if data.draw(st.booleans()) else (*parts[n], 1) for n in names}
        models.append(Weights(f"m{number}", {n: torch.zeros(s) for n, s in shapes.items()}))
    sets, shared = split_by_tensors(models)
    assert sorted(name for model_set in sets for name in model_set.names) == [
        m.name for m in models
    ]
    assert [len(model_set) for model_set in sets] == sorted(map(len, sets), reverse=True)
    for model_set, share in zip(sets, shared, strict=True):
        common = sum(model_set.models[0][name].numel() for name in model_set.tensors)
        sizes = [sum(t.numel() for t in model.values()) for model in model_set.models]
        assert share == common / max(sizes) >= MIN_COMMON_SHARE
        for model in model_set.models:
            assert all(model.shapes[name] == model_set.shapes[name] for name in model_set.tensors)
    order = data.draw(st.permutations(range(count)))
    names = data.draw(st.permutations([f"n{number}" for number in range(count)]))
    again, shares = split_by_tensors([Weights(names[k], dict(models[k])) for k in order])
    new = {model.name: name for model, name in zip(models, names, strict=True)}
    expected = {(frozenset(map(new.get, h.names)), s) for h, s in zip(sets, shared, strict=True)}
    assert {(frozenset(h.names), s) for h, s in zip(again, shares, strict=True)} == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
def test_the_first_tensor_that_is_not_finite_is_named(bad, dtype):
    tensors = weights()
    tensors["norm.weight"][2] = bad
    tensors["pos_embed"][0, 3, 1] = bad
    model = Weights("m", {name: tensor.to(dtype) for name, tensor in tensors.items()})
    assert first_non_finite(model, list(VIT)[1:]) == "norm.weight has entries that are not finite"
    assert first_non_finite(model, list(VIT)) == "pos_embed has entries that are not finite"
    assert first_non_finite(model, ["blocks.0.qkv.weight"]) is None


def test_models_that_are_not_finite_are_read_and_can_be_told(tmp_path):
    broken = weights(1)
    broken["norm.weight"][0] = float("nan")
    write(tmp_path, a=weights(0), b=broken)
    (model_set,) = load(tmp_path).model_sets
    assert [first_non_finite(model, model_set.tensors) is None for model in model_set.models] == [
        True,
        False,
    ]


# Zoos


def test_a_zoo_is_read_with_its_truth_and_what_is_known_of_its_models(grown_zoo):
    loaded = load(grown_zoo)
    specs = {id: grown_zoo.spec(id) for id in grown_zoo.ids()}
    assert model_sets(loaded) == [sorted(specs)]
    assert loaded.shared == [1]
    assert loaded.truth == {id: (s.parent,) if s.parent else () for id, s in specs.items()}
    for id, spec in specs.items():
        about = loaded.info[id]
        assert (about["stage"], about["epoch"]) == (spec.stage, spec.recipe.epochs)
        assert about["accuracy"] == grown_zoo.models().set_index("id")["test_accuracy"][id]
        assert about["factors"]["lr"] == spec.recipe.optimizer.config.lr
    trunk = [name for name in grown_zoo.state_dict(grown_zoo.ids()[0]) if "head" not in name]
    assert sorted(loaded.model_sets[0].tensors) == sorted(trunk)
    for model in loaded.model_sets[0].models:
        assert model["pos_embed"].equal(grown_zoo.state_dict(model.name)["pos_embed"])
    assert load(grown_zoo.path).truth == loaded.truth


def test_all_epochs_of_a_zoo_are_chains(grown_zoo):
    loaded = load(grown_zoo, epochs="all")
    for id in grown_zoo.ids():
        spec = grown_zoo.spec(id)
        epochs = list(grown_zoo.epochs(id).query("kept")["epoch"])
        start = (f"{spec.parent}@{spec.parent_epoch}",) if spec.parent else ()
        assert loaded.truth[f"{id}@{epochs[0]}"] == start
        for before, after in itertools.pairwise(epochs):
            assert loaded.truth[f"{id}@{after}"] == (f"{id}@{before}",)
            assert loaded.info[f"{id}@{after}"]["epoch"] == after
    assert sorted(loaded.models) == sorted(loaded.truth)


def test_a_condition_chooses_models_and_the_truth_is_within_them(grown_zoo):
    loaded = load(grown_zoo, where="stage = 'finetune'")
    assert len(loaded.models) == 4
    assert set(loaded.truth.values()) == {()}
    with pytest.raises(InvalidInput, match=r"for which stage = 'none'.*there is none"):
        load(grown_zoo, where="stage = 'none'")


def test_diverged_unfinished_and_damaged_models_are_left_out_and_named(grown_zoo):
    from vitarium.zoo.model_folder import ModelFolder

    diverged, unfinished, damaged, *_ = grown_zoo.ids()

    def folder(id) -> ModelFolder:
        return grown_zoo.folder(id)

    folder(diverged).finish("diverged", "the loss is nan after epoch 1")
    (folder(unfinished).path / "result.json").unlink()
    file = max((folder(damaged).path / "checkpoints").iterdir())
    content = bytearray(file.read_bytes())
    content[40] ^= 255
    file.write_bytes(content)
    loaded = load(grown_zoo)
    assert loaded.left_out[diverged] == "it diverged: the loss is nan after epoch 1"
    assert loaded.left_out[unfinished] == "its training has not ended"
    assert str(file) in loaded.left_out[damaged]
    assert sorted(loaded.models) == sorted(set(grown_zoo.ids()) - set(loaded.left_out))


def test_models_without_weights_are_left_out(written_zoo):
    with pytest.raises(InvalidInput, match=r"there is none\n.*no weights of it are kept"):
        load(written_zoo)


def test_a_zoo_may_have_as_many_checkpoints_as_the_system_lets_it_open(grown_zoo, monkeypatch):
    import resource

    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (100, 10_000))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limit: limits.append(limit))
    assert len(load(grown_zoo).models) == 6
    ((soft, hard),) = limits
    assert 100 < soft < hard == 10_000
    monkeypatch.setattr(resource, "getrlimit", lambda what: (100, 200))
    with pytest.raises(InvalidInput, match=r"6 checkpoints .* lets a program open 200 files"):
        load(grown_zoo)


def test_an_exported_zoo_has_the_truth_of_the_zoo(grown_zoo, tmp_path):
    children = [id for id in grown_zoo.ids() if grown_zoo.spec(id).parent]
    pair = [
        id for id in children if grown_zoo.spec(id).parent == grown_zoo.spec(children[0]).parent
    ]
    merge(grown_zoo, "uniform_soup", models=pair)
    merge(grown_zoo, "weight_matching", models=pair)
    export(grown_zoo, "safetensors", out=tmp_path / "out")
    from_zoo, from_export = load(grown_zoo), load(tmp_path / "out")
    ids = {name: from_export.info[name]["name"] for name in from_export.models}
    assert {
        ids[name]: tuple(ids[parent] for parent in parents)
        for name, parents in from_export.truth.items()
    } == from_zoo.truth
    assert {Path(name).name for name in ids} == set(ids)
    assert from_export.model_sets[0].tensors == from_zoo.model_sets[0].tensors
    for name, about in from_export.info.items():
        zoo_info = from_zoo.info[ids[name]]
        assert about["file"] == f"{name}.safetensors"
        assert [about[key] for key in ("stage", "epoch", "accuracy")] == [
            zoo_info[key] for key in ("stage", "epoch", "accuracy")
        ]
        if about["stage"] != "merge":
            assert float(about["factors"]["optimizer.lr"]) == zoo_info["factors"]["lr"]
