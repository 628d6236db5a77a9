"""Whatever is done to a zoo, in whatever order, and wherever it is killed: nothing finished is lost.

Random forests of models (children of any epoch, soups, imports, twins of another architecture; frozen
and tied tensors; rounded checkpoints; epochs that are not kept) go through random sequences of all
that changes how weights are kept. After every step all weights of finished epochs are read and
compared with those that were written, and `verify --deep` has to be content.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vitarium import Zoo, merge, merge_zoos
from vitarium.blueprint import Recipe
from vitarium.blueprint.spec import ModelSpec
from vitarium.core.registry import choose
from vitarium.formats.base import ForeignEpoch, ForeignModel
from vitarium.formats.foreign_zoo import ForeignZoo
from vitarium.formats.import_zoo import import_zoo
from vitarium.zoo import About
from vitarium.zoo.checkpoint import MAX_DEPTH
from vitarium.zoo.verify import verify

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
VIT = {"name": "vit", **SIZES}
TWIN = {"name": "mini_deit", "share": "all", **SIZES}
"""One set of weights for all blocks: tensors of other names and shapes."""
CLASSES = tuple("0123456789")


class Killed(BaseException):
    """The process ends; nothing of it may touch the disk any more."""


@contextmanager
def killed_before(change, zoo):
    """End whatever is done before it changes the zoo's files for the n-th time; None: let it be.

    Returns whether it ended by itself, in a list of one.
    """
    changes, survived = 0, [True]

    def dying(do):
        def act(path, *arguments, **options):
            nonlocal changes
            if Path(path).is_relative_to(zoo) and Path(path).name != ".holder.json":
                changes += 1
                if changes > change:
                    raise Killed
            return do(path, *arguments, **options)

        return act

    if change is None:
        yield survived
        return
    with pytest.MonkeyPatch.context() as patch:
        for method in ("replace", "unlink"):
            patch.setattr(Path, method, dying(getattr(Path, method)))
        try:
            yield survived
        except Killed:
            survived[0] = False


@cache
def untrained(twin):
    return recipe_of(0, twin, 1).build(10).state_dict()


def recipe_of(seed, twin, epochs, **factors):
    return Recipe.read(
        {
            "architecture": TWIN if twin else VIT,
            "data": {"name": "digits"},
            "seed": seed,
            "epochs": epochs,
            "batch_size": 32,
            **factors,
        }
    )


def changed(tensors, chance, *, precision):
    """Weights as after an epoch of training: some frozen, one tied to another, some rounded."""
    draw = torch.Generator().manual_seed(chance.randrange(2**31))
    share_frozen, tied = chance.choice([0.0, 0.3, 0.9]), chance.random() < 0.3
    trained = {}
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=draw)
        is_frozen = chance.random() < share_frozen
        trained[name] = tensor if is_frozen else (tensor.float() + 1e-3 * noise).to(tensor.dtype)
        trained[name] = trained[name].to(precision or tensor.dtype)
    if tied:  # one tensor under two names
        trained["norm.weight"] = trained["norm.bias"]
    return trained


def a_moment(chance):
    """Before which change of the disk the process is killed; None: it is not."""
    return chance.choice([None, None, chance.randrange(5), chance.randrange(60)])


def holds_the_same(written, read):
    return written.keys() == read.keys() and all(
        tensor.dtype == read[name].dtype
        and tensor.shape == read[name].shape
        and torch.equal(
            tensor.contiguous().reshape(-1).view(torch.uint8),
            read[name].reshape(-1).view(torch.uint8),
        )
        for name, tensor in written.items()
    )


chance = st.randoms(use_true_random=True)
"""A generator with a seed of hypothesis' choice: its own numbers would be too much alike."""


class Store(RuleBasedStateMachine):
    """A zoo, and beside it what it has to hold."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda handle: None)  # processes end here, not machines
        self.folder = Path(tempfile.mkdtemp(prefix="zoo-"))
        self.zoo = Zoo.create(self.folder / "zoo")
        self.holds = {}
        """(model, epoch) -> its weights, of all finished epochs with weights."""
        self.trainings = {}
        """Model -> spec and, per epoch, the weights to keep (None: not kept)."""
        self.names = {}
        """Imported model -> what it is called where it comes from."""

    def teardown(self):
        self.patch.undo()
        shutil.rmtree(self.folder)

    # What is done to it

    @initialize(chance=chance)
    def grow_a_forest(self, chance):
        for _ in range(chance.randint(1, 4)):
            self._train(self._planned(chance), None)

    @rule(chance=chance)
    def grow(self, chance):
        self._train(self._planned(chance), a_moment(chance))

    @precondition(lambda self: self._unfinished())
    @rule(chance=chance)
    def resume(self, chance):
        self._train(chance.choice(self._unfinished()), a_moment(chance))

    @precondition(lambda self: len(self.holds) > 1)
    @rule(chance=chance)
    def merge(self, chance):
        first = chance.choice(sorted(self.holds))
        alike = [
            place for place in sorted(self.holds) if self._shapes(place) == self._shapes(first)
        ]
        if len(alike) == 1:
            return
        alike.remove(first)
        names = [f"{id}@{epoch}" for id, epoch in (first, chance.choice(alike))]
        method = chance.choice(["uniform_soup", "interpolation", "slerp"])
        with killed_before(a_moment(chance), self.zoo.path) as survived:
            model = merge(self.zoo, method, models=names).id
        if survived[0]:
            self.holds[model, 0] = dict(self.zoo.state_dict(model, 0))

    @rule(chance=chance)
    def bring(self, chance):
        """Import a model, sometimes as a child of another one that was imported."""
        imported = sorted(place for place in self.holds if place[0] in self.names)
        parent, epoch = chance.choice([(None, None), *imported])
        weights = self.holds[parent, epoch] if parent else untrained(False)
        precision = chance.choice([None, torch.float16, torch.float64])
        states = {}
        for number in sorted(chance.sample(range(40), chance.randint(1, 3))):
            weights = changed(weights, chance, precision=precision)
            states[number] = weights
        model = ForeignModel(
            name=f"foreign-{chance.random()}",
            stage="imported",
            epochs=[ForeignEpoch(e, {}, lambda e=e: dict(states[e])) for e in states],
            num_outputs=10,
            parent=self.names.get(parent),
            parent_epoch=epoch,
            architecture=choose("architecture", "vit", **SIZES),
            classes=CLASSES,
        )
        with killed_before(a_moment(chance), self.zoo.path) as survived:
            ids = import_zoo(ForeignZoo("checkpoint_table", self.folder, (model,)), self.zoo)
        if survived[0] and ids[0] not in self.names:  # else it is there, less what was removed
            self.names[ids[0]] = model.name
            self.holds |= {(ids[0], number): state for number, state in states.items()}

    @rule(chance=chance)
    def pack(self, chance):
        with killed_before(a_moment(chance), self.zoo.path) as survived:
            self.zoo.pack()
        if survived[0]:
            for file in map(self._open, self.holds):
                assert file.is_packed
                assert file.depth == file.recorded_depth <= MAX_DEPTH

    @rule(chance=chance)
    def unpack(self, chance):
        with killed_before(a_moment(chance), self.zoo.path) as survived:
            self.zoo.unpack()
        if survived[0]:
            assert not any(self._open(place).is_packed for place in self.holds)

    @precondition(lambda self: self.holds)
    @rule(chance=chance)
    def remove(self, chance):
        """Any model, or the weights of an epoch; those that are built on it stay."""
        model, epoch = chance.choice(sorted(self.holds))
        is_thinned = self.zoo.folder(model).result() and chance.random() < 0.5
        with killed_before(a_moment(chance), self.zoo.path):
            name = f"{model}@{epoch}" if is_thinned else model
            self.zoo.remove(name, keep_dependents=True)
        left = {
            (id, e.number)
            for id in self.zoo.ids()
            for e in self.zoo.folder(id).epochs()
            if e.checkpoint
        }
        assert self.holds.keys() - left <= {(model, epoch)} | {
            place for place in self.holds if not is_thinned and place[0] == model
        }
        self.holds = {place: weights for place, weights in self.holds.items() if place in left}

    @precondition(lambda self: self.holds)
    @rule(chance=chance)
    def copy(self, chance):
        """All of it, or a part without what that comes of, killed and taken up again."""
        target = self._new_folder()
        ids = sorted({model for model, _ in self.holds})
        part = chance.sample(ids, chance.randint(1, len(ids)))
        is_part = chance.random() < 0.5

        def copy():
            if is_part:
                self.zoo.archive(part, out=target, ancestors=False)
            else:
                merge_zoos([self.zoo], target)

        with killed_before(a_moment(chance), target):
            copy()
        copy()
        assert self._faults(target) == []
        copied = Zoo.open(target)
        for (model, epoch), tensors in self.holds.items():
            if model in part or not is_part:
                assert holds_the_same(tensors, copied.state_dict(model, epoch))

    @precondition(lambda self: self.trainings)
    @rule(chance=chance)
    def remove_and_grow_again(self, chance):
        """Whatever stands on it: the same seeds give the same weights."""
        id = chance.choice(sorted(self.trainings))
        if self.zoo.folder(id).exists and self.zoo.folder(id).result():
            if chance.random() < 0.5:
                self.zoo.remove(id, keep_dependents=True)
            else:
                shutil.rmtree(self.zoo.folder(id).path)
            self.holds = {place: w for place, w in self.holds.items() if place[0] != id}
            self._train(id, None)
            assert self.zoo.folder(id).result()["message"] == ""

    @rule()
    def list(self):
        assert len(self.zoo.models()) == len(self.zoo.ids())

    # What has to hold

    @invariant()
    def everything_finished_reads_bit_for_bit(self):
        assert self._faults(self.zoo.path) == []
        for place, tensors in self.holds.items():
            assert holds_the_same(tensors, self._open(place).state_dict()), place

    # How

    def _new_folder(self):
        return Path(tempfile.mkdtemp(dir=self.folder)) / "zoo"

    def _faults(self, zoo):
        return verify(zoo, deep=True)

    def _open(self, place):
        model, epoch = place
        return self.zoo.checkpoint(model, epoch)

    def _shapes(self, place):
        return {name: tensor.shape for name, tensor in self.holds[place].items()}

    def _unfinished(self):
        """Trainings that were killed, and those of models that were removed."""
        return [
            id
            for id, (spec, _) in sorted(self.trainings.items())
            if not self.zoo.folder(id).result()
            and (spec.parent is None or (spec.parent, spec.parent_epoch) in self.holds)
        ]

    def _planned(self, chance):
        """Plan a training from scratch, or from any epoch that there is."""
        twin = chance.random() < 0.2
        parent, start = chance.choice([(None, None), *sorted(self.holds)])
        epochs = chance.randint(1, 4)
        keep = sorted(chance.sample(range(epochs), chance.randint(0, epochs)))
        recipe = recipe_of(chance.randrange(10**6), twin, epochs, checkpoints=keep)
        spec = ModelSpec(stage="grown", parent=parent, parent_epoch=start, recipe=recipe)
        weights = dict(untrained(twin))
        if parent:
            for name, tensor in self.holds[parent, start].items():
                if name in weights and weights[name].shape == tensor.shape:
                    weights[name] = tensor
        precision = chance.choice([None, None, torch.bfloat16])
        states = []
        for epoch in range(epochs + 1):
            states.append(weights if recipe.keeps(epoch) else None)
            weights = changed(weights, chance, precision=precision)
        self.trainings[spec.id] = spec, states
        return spec.id

    def _train(self, id, kill):
        """As `grow` does: goes on after the last finished epoch."""
        spec, states = self.trainings[id]
        folder = self.zoo.folder(id)
        last = spec.recipe.epochs
        with killed_before(kill, self.zoo.path):
            if folder.exists:
                folder.sweep()
            else:
                folder.begin(spec, About(10, CLASSES, {}))
            for epoch in range(len(folder.epochs()), last + 1):
                progress = None if epoch == last else {"model/x": torch.full((3,), float(epoch))}
                folder.commit(epoch, {"seconds": 1.0}, states[epoch], progress)
            folder.finish("finished")
        finished = folder.epochs() if folder.exists else []
        self.holds |= {(id, e.number): states[e.number] for e in finished if e.checkpoint}


def sequences(count, steps):
    return settings(
        max_examples=count,
        stateful_step_count=steps,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.slow
class TestSomeSequences(Store.TestCase):
    settings = sequences(15, 4)


@pytest.mark.evidence
class TestManySequences(Store.TestCase):
    settings = sequences(2000, 10)
