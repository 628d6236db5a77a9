"""What is the same for every format: order, ids, lineage, going on, refusing."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from vitarium import merge
from vitarium.blueprint import ImportedSpec
from vitarium.core import registry
from vitarium.core.errors import (
    CorruptFile,
    DiskFull,
    IncompatibleWeights,
    InvalidInput,
    UnknownName,
    UntrustedFile,
    ZooInUse,
)
from vitarium.formats.base import ForeignEpoch, ForeignModel, importer
from vitarium.formats.foreign_zoo import find_models, parents_first
from vitarium.formats.import_zoo import import_zoo
from vitarium.formats.weights import fingerprint
from vitarium.testing import check_importer
from vitarium.zoo import ModelFolder, Zoo
from vitarium.zoo.lock import held

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}


def model(name, numbers=(0, 1), weights=WEIGHTS, **about):
    epochs = [ForeignEpoch(n, {"test_loss": float(n)}, lambda: dict(weights)) for n in numbers]
    return ForeignModel(name, about.pop("stage", "s"), epochs, 3, **about)


@pytest.fixture
def imported(monkeypatch, tmp_path):
    """Import models of an importer that is made for the occasion."""
    monkeypatch.setattr(registry, "_plugins", {**registry._plugins, "importer": {}})

    def run(*models, **options):
        @importer("ours", detects=lambda source: True)
        def ours(config, source):
            """A test's."""
            yield from models

        return import_zoo(tmp_path, tmp_path / "zoo", **options)

    return run


def test_parents_come_before_their_children_in_whatever_order_they_are_found(imported, tmp_path):
    ids = imported(model("c", parent="b"), model("b", parent="a"), model("a"))
    zoo = Zoo.open(tmp_path / "zoo")
    assert [zoo.spec(id).origin.name for id in ids] == ["a", "b", "c"]
    assert [zoo.spec(id).parent for id in ids] == [None, *ids[:2]]
    assert {zoo.spec(id).parent_epoch for id in ids[1:]} == {1}, "after the parent's last"


def test_models_that_descend_from_one_another_or_share_a_name_are_refused():
    with pytest.raises(InvalidInput, match="descend from one another: a, b"):
        parents_first([model("a", parent="b"), model("b", parent="a")])
    with pytest.raises(InvalidInput, match="two models are called 'a'"):
        parents_first([model("a"), model("a")])


def test_dtypes_and_bits_are_kept_and_tied_tensors_too(imported, tmp_path):
    weights = {
        "half": torch.randn(3, 2).half(),
        "brain": torch.randn(4).bfloat16(),
        "count": torch.tensor(5),
        "yes": torch.tensor([True, False]),
        "none": torch.empty(0, 3),
        "turned": torch.randn(3, 5).T,
    }
    weights["tied"] = weights["half"]
    (id,) = imported(model("a", weights=weights))
    read = Zoo.open(tmp_path / "zoo").state_dict(id)
    assert read.keys() == weights.keys()
    for name, tensor in weights.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_the_fingerprint_is_of_names_types_shapes_and_bytes():
    by_hand = hashlib.sha256()
    for name, tensor in sorted(WEIGHTS.items()):
        by_hand.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        by_hand.update(tensor.numpy().tobytes())
    assert fingerprint(WEIGHTS) == by_hand.hexdigest()
    turned = dict(reversed(WEIGHTS.items()))
    assert fingerprint(turned) == fingerprint(WEIGHTS)
    for other in (
        {"a": WEIGHTS["a"].reshape(3, 2)},
        {"a": WEIGHTS["a"].int()},
        {"a": WEIGHTS["a"] + 1},
    ):
        assert fingerprint({**WEIGHTS, **other}) != fingerprint(WEIGHTS)


def test_importing_again_writes_nothing(imported, tmp_path):
    models = model("a"), model("b", parent="a", weights={"q": torch.ones(1)})
    ids = imported(*models)
    files = {f: f.stat().st_mtime_ns for f in (tmp_path / "zoo" / "models").rglob("*")}
    events = []
    assert imported(*models, listener=events.append) == ids
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "zoo" / "models").rglob("*")} == files
    assert [event.new for event in events] == [False] * len(models)


def test_an_interrupted_import_goes_on_after_the_last_epoch(imported, tmp_path):
    read = []

    class Stopped(Exception):
        pass

    class StopAfterTwo:
        def step(self, task, done, total):
            assert (task, total) == ("a", 4)
            if done == 2:
                raise Stopped

    def load(number):
        read.append(number)
        return {"a": torch.full((2,), float(number))}

    epochs = [ForeignEpoch(n, {}, lambda n=n: load(n)) for n in range(4)]
    one = ForeignModel("a", "s", epochs, 2)
    with pytest.raises(Stopped):
        imported(one, progress=StopAfterTwo())
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.folder(zoo.ids()[0]).status == "training"
    assert read == [3, 0, 1]
    read.clear()
    (id,) = imported(one)
    assert read == [3, 2, 3], "the last tells which model it is; 0 and 1 are there"
    assert zoo.folder(id).status == "finished"
    assert [zoo.state_dict(id, n)["a"][0] for n in range(4)] == [0, 1, 2, 3]


def test_metrics_are_kept_of_epochs_without_weights(imported, tmp_path):
    epochs = [
        ForeignEpoch(0, {"test_loss": 2.0}, None),
        ForeignEpoch(1, {"test_loss": 1.0}, lambda: dict(WEIGHTS)),
        ForeignEpoch(5, {"test_loss": 0.5}, None),
    ]
    (id,) = imported(ForeignModel("a", "s", epochs, 2))
    table = Zoo.open(tmp_path / "zoo").epochs(id)
    assert table["epoch"].tolist() == [0, 1, 5]
    assert table["kept"].tolist() == [False, True, False]
    assert table["test_loss"].tolist() == [2.0, 1.0, 0.5]


def test_a_model_without_weights_is_left_out_and_said(imported, tmp_path):
    empty = ForeignModel("empty", "s", [ForeignEpoch(0, {}, None)], 2)
    assert len(imported(empty, model("a"))) == 1
    assert [m.name for m in find_models(tmp_path, importer="ours").empty] == ["empty"]
    with pytest.raises(InvalidInput, match="no model with weights"):
        imported(empty)


def test_a_missing_parent_stops_the_import_before_anything_is_written(imported, tmp_path):
    with pytest.raises(InvalidInput, match="child descends from gone"):
        imported(model("child", parent="gone"))
    assert not (tmp_path / "zoo").exists()
    (id,) = imported(model("child", parent="gone"), orphans=True)
    spec = Zoo.open(tmp_path / "zoo").spec(id)
    assert (spec.parent, spec.parent_epoch) == (None, None)


def test_what_was_merged_of_a_parent_is_not_taken_for_it(imported, tmp_path):
    """A soup has the origin of one of its ingredients, and with it that model's name."""
    ids = imported(model("a"), model("b", weights={**WEIGHTS, "b": torch.tensor(9)}))
    zoo = Zoo.open(tmp_path / "zoo")
    soups = [
        merge(zoo, "uniform_soup", models=[f"{ids[0]}@0", f"{ids[1]}@{epoch}"]).id
        for epoch in (0, 1)
    ]
    (name,) = {zoo.spec(soup).origin.name for soup in soups}
    (child,) = imported(model("c", parent=name, parent_epoch=1))
    assert zoo.spec(child).parent == ids["ab".index(name)]
    assert zoo.spec(child).parent_epoch == 1


def test_a_parent_may_have_been_imported_before(imported, tmp_path):
    (parent,) = imported(model("parent"))
    (child,) = imported(model("child", parent="parent", parent_epoch=0))
    spec = Zoo.open(tmp_path / "zoo").spec(child)
    assert isinstance(spec, ImportedSpec)
    assert (spec.parent, spec.parent_epoch) == (parent, 0)


@pytest.mark.parametrize(
    ("outputs", "message"), [(4, r"head.bias is \[3\], not \[4\]"), (3, "blocks.1.*missing")]
)
def test_weights_that_do_not_fit_are_an_error_that_leaves_nothing(
    imported, outputs, message, tmp_path
):
    tiny = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "num_heads": 2}
    built = registry.choose("architecture", "vit", depth=1, **tiny)
    section = built if outputs == 4 else registry.choose("architecture", "vit", depth=2, **tiny)
    weights = built(3).state_dict()
    epochs = [ForeignEpoch(0, {}, lambda: dict(weights))]
    bad = ForeignModel("bad", "s", epochs, outputs, architecture=section, where="t.csv, row 7")
    with pytest.raises(IncompatibleWeights, match=rf"bad \(t.csv, row 7\), epoch 0: .*{message}"):
        imported(bad)
    assert not Zoo.open(tmp_path / "zoo").ids()


class Unreadable:
    """Weights of a number of epochs, of which one cannot be read."""

    def __init__(self, bad, error):
        self.bad, self.error = bad, error

    def model(self, name="a", count=4):
        epochs = [ForeignEpoch(n, {}, lambda n=n: self.load(n)) for n in range(count)]
        return ForeignModel(name, "s", epochs, 2)

    def load(self, number):
        if number == self.bad:
            raise self.error
        return {"a": torch.full((2,), float(number))}


@pytest.mark.parametrize(
    "error",
    [
        CorruptFile(Path("w"), "cut off"),
        UntrustedFile(Path("w"), "code"),
        IncompatibleWeights("other"),
        InvalidInput("a pointer"),
    ],
)
def test_a_model_that_fails_at_a_later_epoch_leaves_nothing_and_the_ones_before_stay(
    imported, tmp_path, error
):
    source = Unreadable(2, error)
    with pytest.raises(type(error)):
        imported(model("whole"), source.model())
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.models()["status"].tolist() == ["finished"]
    assert len(list((tmp_path / "zoo" / "models").iterdir())) == 1
    source.bad = None
    ids = imported(model("whole"), source.model())
    assert [zoo.folder(id).status for id in ids] == ["finished", "finished"]
    assert [zoo.state_dict(ids[1], n)["a"][0] for n in range(4)] == [0, 1, 2, 3]


def test_what_an_earlier_import_began_stays_when_a_later_epoch_fails(imported, tmp_path):
    class StopAfterTwo:
        def step(self, task, done, total):
            if done == 2:
                raise KeyboardInterrupt

    source = Unreadable(3, CorruptFile(Path("w"), "cut off"))
    source.bad = None
    with pytest.raises(KeyboardInterrupt):
        imported(source.model(count=5), progress=StopAfterTwo())
    source.bad = 3
    with pytest.raises(CorruptFile):
        imported(source.model(count=5))
    zoo = Zoo.open(tmp_path / "zoo")
    assert [len(zoo.folder(id).epochs()) for id in zoo.ids()] == [3]


def test_a_full_disk_keeps_what_can_be_resumed(imported, tmp_path, monkeypatch):
    commit, source = ModelFolder.commit, Unreadable(None, None)

    def full(folder, number, *arguments, **options):
        if number == 2:
            raise DiskFull(folder.path)
        commit(folder, number, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(ModelFolder, "commit", full)
        with pytest.raises(DiskFull):
            imported(source.model())
    zoo = Zoo.open(tmp_path / "zoo")
    assert [len(zoo.folder(id).epochs()) for id in zoo.ids()] == [2]
    (id,) = imported(source.model())
    assert zoo.folder(id).status == "finished"


def test_all_shapes_are_compared_before_anything_is_written(imported, tmp_path):
    tiny = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "num_heads": 2, "depth": 1}
    built = registry.choose("architecture", "vit", **tiny)
    weights = built(3).state_dict()
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    wrong = shapes | {"norm.weight": torch.Size([7])}
    epochs = [
        ForeignEpoch(n, {}, lambda: dict(weights), lambda n=n: wrong if n == 5 else shapes)
        for n in (1, 5, 9)
    ]
    bad = ForeignModel("bad", "s", epochs, 3, architecture=built)
    with pytest.raises(IncompatibleWeights, match=r"bad, epoch 5: .*norm.weight is \[7\]"):
        imported(model("good"), bad)
    assert not (tmp_path / "zoo").exists()


def test_a_dtype_that_cannot_be_stored_names_model_epoch_and_tensor(imported, tmp_path):
    weights = {"x": torch.ones(2, dtype=torch.complex64)}
    with pytest.raises(InvalidInput, match=r"m \(t.csv, row 2\), epoch 1: x is of torch.complex64"):
        imported(model("m", weights=weights, where="t.csv, row 2"))


def test_a_wrapper_that_was_not_told_is_named_with_the_setting(imported):
    tiny = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "num_heads": 2, "depth": 1}
    built = registry.choose("architecture", "vit", **tiny)
    weights = {f"tower.{name}": tensor for name, tensor in built(3).state_dict().items()}
    epochs = [ForeignEpoch(0, {}, lambda: dict(weights))]
    with pytest.raises(IncompatibleWeights, match=r"begin with 'tower\.'; prefix='tower'"):
        imported(ForeignModel("m", "s", epochs, 3, architecture=built))


def test_a_fallback_is_taken_only_where_no_other_format_is_recognized(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {**registry._plugins, "importer": {}})
    importer("any", detects=lambda source: True, fallback=True)(lambda config, source: [model("a")])
    assert find_models(tmp_path).importer == "any"
    importer("special", detects=lambda source: True)(lambda config, source: [model("a")])
    assert find_models(tmp_path).importer == "special"


def test_another_writer_is_waited_for_or_named(imported, tmp_path):
    imported(model("a"))
    with held(tmp_path / "zoo"), pytest.raises(ZooInUse):
        imported(model("b", weights={"q": torch.ones(1)}))


def test_one_importer_has_to_know_the_format(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {**registry._plugins, "importer": {}})
    with pytest.raises(InvalidInput, match="gone does not exist"):
        import_zoo(tmp_path / "gone", tmp_path / "zoo")
    for name in ("one", "two"):
        importer(name, detects=lambda source: True)(lambda config, source: iter(()))
    with pytest.raises(InvalidInput, match="several formats: one, two; name one: importer=NAME"):
        import_zoo(tmp_path, tmp_path / "zoo")
    with pytest.raises(UnknownName):
        import_zoo(tmp_path, tmp_path / "zoo", importer="three")


def test_an_unknown_folder_is_told_what_formats_there_are(tmp_path):
    with pytest.raises(InvalidInput, match=r"(?s)in no known format.*vit_zoo: The published"):
        import_zoo(tmp_path, tmp_path / "zoo")


@pytest.mark.parametrize("name", sorted(registry.plugins("importer")))
def test_every_importer_keeps_its_contract(name):
    check_importer(name)


def test_the_contract_names_importer_and_rule(monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {**registry._plugins, "importer": {}})

    @importer("greedy", detects=lambda source: True)
    def greedy(config, source):
        """Detects everything."""

    with pytest.raises(AssertionError, match="importer 'greedy': it detects its format in empty"):
        check_importer("greedy")


def test_names_of_files_that_are_no_utf8_can_be_told(imported, tmp_path):
    name = os.fsdecode(b"\xff")
    first, second = imported(model(name, classes=(name, "b", "c")), model("b", parent=name))
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.spec(first).imported.name == "\\xff"
    assert zoo.folder(first).about().classes == ("\\xff", "b", "c")
    assert zoo.spec(second).parent == first
    assert len(zoo.models()) == 2
