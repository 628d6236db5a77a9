"""Parents before children, and the rest in the plan's order."""

from vitarium import Blueprint, plan
from vitarium.engine.scheduler import Queue


def drain(queue):
    taken = []
    while spec := queue.next():
        taken.append(spec)
    return taken


def test_children_wait_for_their_parent(tiny):
    planned = plan(Blueprint.read(tiny))
    queue = Queue(planned, done=[])
    first = drain(queue)
    assert first == planned.of_stage("pretrain")
    assert not queue.can_start()
    queue.finished(first[1])
    assert queue.can_start()
    assert {spec.parent for spec in drain(queue)} == {first[1].id}
    assert len(queue) == 2


def test_what_is_done_is_not_taken_and_what_is_put_back_comes_next(tiny):
    planned = plan(Blueprint.read(tiny))
    queue = Queue(planned, done=[planned.models[0].id])
    spec = queue.next()
    assert spec == planned.models[1]
    queue.put_back(spec)
    assert queue.next() == spec


def test_children_of_barren_models_are_orphans(tiny):
    planned = plan(Blueprint.read(tiny))
    first, second = planned.of_stage("pretrain")
    queue = Queue(planned, done=[second.id], without_checkpoint=[first.id])
    assert {spec.parent for spec in drain(queue)} == {second.id}
    assert {spec.parent for spec in queue.waiting()} == {first.id}
    assert not queue.can_start()
