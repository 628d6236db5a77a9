"""Zoos that went different ways are made one, in whatever order, and wherever that is killed.

To what `test_any_sequence` does to a zoo come a copy that is thinned, grown on and trained anew
with other seeds of the machine, and its way back: of each model are the bits of one training there,
those of the preferred zoo, and none that either keeps is lost.
"""

import shutil

import pytest
from hypothesis.stateful import invariant, precondition, rule

from vitarium import Zoo, merge_zoos
from vitarium.core.errors import InvalidInput
from vitarium.zoo.verify import verify
from zoo.test_any_sequence import (
    Store,
    a_moment,
    chance,
    changed,
    holds_the_same,
    killed_before,
    sequences,
)


class Siblings(Store):
    """A zoo into which copies of it are merged that have changed meanwhile."""

    @precondition(lambda self: self.holds)
    @rule(chance=chance)
    def merge_a_sibling(self, chance):
        sibling = Zoo.open(shutil.copytree(self.zoo.path, self._new_folder()))
        of_sibling, trainings = dict(self.holds), dict(self.trainings)
        for _ in range(chance.randint(1, 3)):
            self._change(sibling, of_sibling, trainings, chance)
        if chance.random() < 0.5:
            self._thin(self.zoo, self.holds, chance)
        self._merge(sibling, of_sibling, trainings, chance)

    def _merge(self, sibling, of_sibling, trainings, chance):
        conflicts = merge_zoos([sibling], self.zoo, dry_run=True).conflicts
        for place in self.holds.keys() & of_sibling.keys():
            if place[0] not in conflicts:
                assert holds_the_same(self.holds[place], of_sibling[place])
        assert conflicts.keys() >= self._trained_otherwise(trainings)
        prefer = chance.choice([self.zoo, sibling])
        if conflicts:
            with pytest.raises(InvalidInput, match="other bits"):
                merge_zoos([sibling], self.zoo)
        with killed_before(a_moment(chance), self.zoo.path) as survived:
            merge_zoos([sibling], self.zoo, prefer=prefer)
        if not survived[0] and chance.random() < 0.3:
            self.zoo.pack()  # something else comes first
        merge_zoos([sibling], self.zoo, prefer=prefer)
        for place, weights in of_sibling.items():
            if place[0] not in conflicts:
                self.holds[place] = weights
        if prefer is sibling:
            self.holds = {p: w for p, w in self.holds.items() if p[0] not in conflicts}
            self.holds |= {p: w for p, w in of_sibling.items() if p[0] in conflicts}
        for id in trainings:
            if id not in self.trainings or (id in conflicts and prefer is sibling):
                self.trainings[id] = trainings[id]
        assert merge_zoos([sibling], self.zoo, prefer=prefer).copied == {}

    def _trained_otherwise(self, trainings):
        """Models of the zoo, thinned or not, that were trained to other bits in a sibling."""
        return {
            id
            for id, (_, states) in self.trainings.items()
            if self.zoo.folder(id).exists
            for epoch in self.zoo.folder(id).epochs()
            if (state := states[epoch.number]) is not None
            and not holds_the_same(state, trainings[id][1][epoch.number])
        }

    def _change(self, zoo, holds, trainings, chance):
        finished = [id for id in trainings if zoo.folder(id).exists and zoo.folder(id).result()]
        if finished and chance.random() < 0.5:
            id = chance.choice(sorted(finished))
            spec, states = trainings[id]
            zoo.remove(id, keep_dependents=True)
            first = next((n for n, state in enumerate(states) if state is not None), None)
            others = [
                state if state is None or n == first else changed(state, chance, precision=None)
                for n, state in enumerate(states)
            ]
            for place in [place for place in holds if place[0] == id]:
                del holds[place]
            trainings[id] = spec, others
            self._train_in(zoo, holds, trainings, id)
        else:
            self._thin(zoo, holds, chance)

    def _train_in(self, zoo, holds, trainings, id):
        own = self.zoo, self.holds, self.trainings
        self.zoo, self.holds, self.trainings = zoo, {}, trainings
        self._train(id, None)
        holds |= self.holds
        self.zoo, self.holds, self.trainings = own

    def _thin(self, zoo, holds, chance):
        checkpoints = sorted(place for place in holds if zoo.folder(place[0]).result())
        if checkpoints:
            model, epoch = chance.choice(checkpoints)
            zoo.remove(f"{model}@{epoch}", keep_dependents=True)
            del holds[model, epoch]

    @invariant()
    def nothing_is_kept_that_should_not_be(self):
        assert self.holds.keys() >= self._kept()

    def _faults(self, zoo):
        """But for models that started from other bits of their parents."""
        faults = verify(zoo, deep=True)
        return [fault for fault in faults if "it has other weights than" not in fault.fault]

    def _kept(self):
        return {
            (id, epoch.number)
            for id in self.trainings
            if self.zoo.folder(id).exists
            for epoch in self.zoo.folder(id).epochs()
            if epoch.checkpoint
        }


@pytest.mark.slow
class TestSomeMerges(Siblings.TestCase):
    settings = sequences(8, 3)


@pytest.mark.evidence
class TestManyMerges(Siblings.TestCase):
    settings = sequences(1000, 8)
