"""Lineage of a zoo, or of a folder of anyone's files, from what is read to its scores."""

import csv

import pytest
import torch
from safetensors.torch import save_file

from vitarium import Zoo, import_zoo
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import choose
from vitarium.lineage.recover import recover


@pytest.fixture
def walks(weight_walks):
    trees = weight_walks.Walks(0)
    trees.tree("a", (3, 1), 0.2, 0.6)
    trees.tree("b", (3,), 0.2, 0.6)
    return trees


def save(folder, name, tensors):
    save_file({key: torch.as_tensor(value) for key, value in tensors.items()}, folder / name)


@pytest.fixture
def folder(walks, tmp_path):
    """Of files whose names say nothing."""
    for name, tensors in walks.tensors.items():
        save(tmp_path, f"{name}.safetensors", tensors)
    return tmp_path


def table(folder, walks):
    with (folder / "lineage.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["model", "parent"])
        for name, parents in walks.parents.items():
            (parent,) = parents or ("",)
            rows.writerow([f"{name}.safetensors", parent and f"{parent}.safetensors"])


def short(forest) -> dict[str, tuple[str, ...]]:
    """Parents by the files' names without their endings."""
    plain = {name: name.removesuffix(".safetensors") for name in forest.models}
    return {
        plain[model]: tuple(sorted(plain[parent] for parent in of))
        for model, of in forest.parents.items()
    }


# Imported models


def test_imported_models_without_a_parent_have_no_truth(folder, walks, tmp_path):
    import_zoo(folder, tmp_path / "zoo", architecture="none")
    recovered = recover(tmp_path / "zoo", compare=["nearest_root"])
    assert (recovered.truth, recovered.scores) == (None, None)
    assert recovered.others["nearest_root"][1] is None
    assert len(recovered.forest.edges) == sum(map(bool, walks.parents.values()))
    with pytest.raises(InvalidInput, match="the true parents are not known"):
        recover(tmp_path / "zoo", truth=True)


def test_the_parents_that_a_table_names_are_known_and_no_others(folder, walks, tmp_path):
    with (folder / "models.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "name", "parent", "architecture"])
        for name, parents in walks.parents.items():
            rows.writerow([f"{name}.safetensors", name, *(parents or [""]), "none"])
    import_zoo(folder, tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    ids = {zoo.spec(id).origin.name: id for id in zoo.ids()}
    recovered = recover(zoo, compare=["nearest_root"])
    children = {name: parents for name, parents in walks.parents.items() if parents}
    assert recovered.truth == {ids[name]: (ids[p],) for name, (p,) in children.items()}
    assert not recovered.knows_all_parents
    assert (recovered.scores.models, recovered.scores.trees) == (len(children), 0)
    assert recovered.scores.node_accuracy == recovered.scores.edge_precision == 1
    known = recovered.to_frame().set_index("model")["true_parents"]
    assert {name for name in ids if known[ids[name]]} == set(children)


# A folder of files


def test_a_folder_of_files_has_a_forest_and_without_a_table_no_scores(folder, walks):
    recovered = recover(folder)
    assert short(recovered.forest) == walks.parents
    assert (recovered.truth, recovered.scores) == (None, None)
    assert not recovered.left_out
    (group,) = recovered.groups
    assert list(group.models) == list(recovered.forest.models)
    assert group.shared == 1
    assert group.tensors == len(walks.tensors["a"])


def test_a_table_of_parents_gives_scores(folder, walks):
    table(folder, walks)
    recovered = recover(folder)
    assert recovered.scores is not None
    assert recovered.scores.node_accuracy == 1
    assert recovered.scores.adjusted_rand_index == 1
    assert recover(folder, truth=True).scores == recovered.scores
    assert "parent_accuracy" in repr(recovered)
    assert "Forest(" not in repr(recovered)


def test_truth_that_is_not_wanted_is_not_looked_at(folder, walks):
    table(folder, walks)
    recovered = recover(folder, truth=False, compare=["mother"])
    assert (recovered.truth, recovered.scores) == (None, None)
    assert recovered.others["mother"][1] is None


def test_truth_that_nobody_knows_is_asked_for_with_advice(folder):
    with pytest.raises(InvalidInput, match=r"the true parents are not known.*lineage\.csv"):
        recover(folder, truth=True)


def test_other_methods_run_beside_on_the_same_models(folder, walks):
    table(folder, walks)
    recovered = recover(folder, compare=["mother"])
    assert recovered.forest.method == "descent"
    forest, scores = recovered.others["mother"]
    assert forest.method == "mother"
    assert list(forest.models) == list(recovered.forest.models)
    assert 0 <= scores.node_accuracy <= recovered.scores.node_accuracy


def test_settings_reach_the_method(folder):
    fall = recover(folder, "mother", direction="specialization").forest
    grow = recover(folder, choose("lineage", "mother", direction="generalization")).forest
    assert fall.parents != grow.parents
    with pytest.raises(UnknownName):
        recover(folder, "horoscope")


def test_the_number_of_trees_reaches_the_method(folder):
    assert set(recover(folder, trees=1).forest.families) == {0}
    assert len(set(recover(folder, trees=3).forest.families)) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_with_numbers_that_are_none_is_set_aside_and_the_tensor_named(value, folder, walks):
    table(folder, walks)
    bad = {name: torch.as_tensor(tensor).clone() for name, tensor in walks.tensors["a.1"].items()}
    bad["blocks.1.attn.proj.weight"][3, 4] = value
    save(folder, "a.1.safetensors", bad)
    recovered = recover(folder)
    ((name, why),) = recovered.left_out.items()
    assert name.startswith("a.1")
    assert why == "blocks.1.attn.proj.weight has entries that are not finite"
    assert name not in recovered.forest.models
    grandchild = next(model for model in recovered.truth if model.startswith("a.1.0"))
    assert [parent.removesuffix(".safetensors") for parent in recovered.truth[grandchild]] == ["a"]
    assert short(recovered.forest)["a.1.0"] == ("a",)
    assert recovered.scores.node_accuracy == 1


def test_models_of_several_shapes_are_groups_with_families_of_their_own(folder, walks):
    for name in ("a", "a.0"):
        wide = {key: value.repeat(2, -1) for key, value in walks.tensors[name].items()}
        save(folder, f"wide {name}.safetensors", wide)
    save(folder, "other.safetensors", {"layer.weight": torch.randn(4, 4)})
    recovered = recover(folder)
    assert [len(group.models) for group in recovered.groups] == [11, 2, 1]
    parents = short(recovered.forest)
    assert {name: parents[name] for name in walks.parents} == walks.parents
    assert parents["wide a.0"] == ("wide a",)
    assert parents["other"] == ()
    family = dict(zip(recovered.forest.models, recovered.forest.families, strict=True))
    assert sorted(set(family.values())) == [0, 1, 2, 3]
    assert list(dict.fromkeys(recovered.forest.families)) == [0, 1, 2, 3]
    single = next(name for name in family if name.startswith("other"))
    assert recovered.forest.roots[single] == 1


def test_trees_of_several_shapes_are_not_counted_together(folder):
    save(folder, "other.safetensors", {"layer.weight": torch.randn(4, 4)})
    with pytest.raises(InvalidInput, match=r"2 trees, but models of 2 different shapes"):
        recover(folder, trees=2)


def test_fewer_than_two_models_that_can_be_used_are_refused_with_the_reasons(tmp_path):
    save(tmp_path, "good.safetensors", {"layer.weight": torch.randn(4, 4)})
    save(tmp_path, "bad.safetensors", {"layer.weight": torch.full((4, 4), float("nan"))})
    with pytest.raises(InvalidInput, match=r"two models or more.*bad.*layer.weight has entries"):
        recover(tmp_path)


def test_what_is_done_is_reported(folder, steps):
    recover(folder, compare=["mother"], progress=steps)
    assert {"recovering: descent", "recovering: mother"} <= {what for what, *_ in steps}
    assert all(0 <= done <= of for _, done, of in steps)


# A zoo


def test_the_lineage_of_a_zoo_is_recovered_and_scored_by_what_it_knows(grown_zoo):
    recovered = recover(grown_zoo, compare=["mother"])
    models = grown_zoo.models().set_index("id")
    assert set(recovered.forest.models) == set(models.index)
    for model, parents in recovered.truth.items():
        parent = models.loc[model, "parent"]
        assert parents == (() if parent != parent or parent is None else (parent,))
    assert recovered.scores.adjusted_rand_index == 1
    assert recovered.scores.node_accuracy >= recovered.others["mother"][1].node_accuracy
    assert {recovered.info[model]["stage"] for model in recovered.info} == {"pretrain", "finetune"}
    by_path = recover(str(grown_zoo.path)).forest
    assert by_path == recovered.forest


def test_all_epochs_of_a_zoo_are_models(grown_zoo):
    recovered = recover(grown_zoo, epochs="all")
    names = recovered.forest.models
    assert len(names) > len(grown_zoo.ids())
    assert all("@" in name for name in names)
    assert recovered.scores.adjusted_rand_index == 1
    first = next(name for name in names if name.endswith("@1") and recovered.truth[name])
    assert len(recovered.truth[first]) == 1


def test_a_condition_chooses_models_of_a_zoo(grown_zoo):
    recovered = recover(grown_zoo, where="stage = 'finetune'")
    assert len(recovered.forest.models) == 4
    assert all(not parents for parents in recovered.truth.values())


def test_a_zoo_without_weights_is_refused(written_zoo):
    with pytest.raises(InvalidInput, match="two models or more"):
        recover(written_zoo)


def test_on_many_models_no_other_method_runs_beside_it(folder, monkeypatch):
    monkeypatch.setattr("vitarium.lineage.recover.MAX_COMPARED_MODELS", 3)
    recovered = recover(folder, compare=["mother", "atlas"])
    assert recovered.others == {}
    (note,) = recovered.forest.notes
    assert note.startswith("No other method ran beside it (mother, atlas)")


def test_models_of_a_zoo_are_chosen_by_the_beginnings_of_their_ids(grown_zoo, folder):
    family = sorted(grown_zoo.query("SELECT id FROM models WHERE stage = 'finetune'")["id"])
    recovered = recover(grown_zoo.path, models=(id[:9] for id in family))
    assert recovered.forest.models == family
    with pytest.raises(UnknownName):
        recover(grown_zoo, models=[*family, "zzz"])
    with pytest.raises(InvalidInput, match="is not a zoo: models"):
        recover(folder, models=family)


def test_a_frame_has_a_row_per_edge_and_per_root(grown_zoo):
    recovered = recover(grown_zoo)
    frame, forest = recovered.to_frame(), recovered.forest
    assert frame["parent"].isna().sum() == len(forest.roots)
    edges = frame[frame["parent"].notna()]
    listed = {(e.child, e.parent, e.confidence, e.share, e.kind) for e in forest.edges}
    columns = ["model", "parent", "confidence", "share", "kind"]
    assert set(edges[columns].itertuples(index=False, name=None)) == listed
    trees = dict(zip(frame["model"], frame["tree"], strict=True))
    assert trees == dict(zip(forest.models, forest.families, strict=True))
    assert dict(zip(frame["model"], frame["true_parents"], strict=True)) == recovered.truth


def test_a_frame_without_a_truth_does_not_speak_of_it(grown_zoo):
    assert "true_parents" not in recover(grown_zoo, truth=False).to_frame()
