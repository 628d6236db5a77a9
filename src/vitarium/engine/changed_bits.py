"""Notices of growing: models that were grown again with other bits, and who started from these."""

from collections.abc import Iterable, Iterator

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.zoo import Zoo, _ledger
from vitarium.zoo._lineage_faults import changed_sources

_LISTED = 4  # models that a notice names


def changed_bits(zoo: Zoo, grown: Iterable[str], existing: Iterable[str]) -> Iterator[str]:
    """A sentence for each model that was grown again and has other weights than before, and for
    each checkpoint that has other weights than those from which models started.

    Raises CorruptFile.
    """
    grown = list(grown)
    for id in grown:
        folder = zoo.folder(id)
        message: str = (folder.result() or {}).get("message", "")
        if _ledger.OTHER_WEIGHTS not in message:  # a worker elsewhere did not see what was removed
            message = _ledger.difference(zoo.path, id, folder.epochs())
        if message:
            yield f"{id}: {message}"
    dependents: dict[CheckpointRef, list[str]] = {}
    for id in [*existing, *grown]:
        for ref in changed_sources(zoo.folder(id)):
            dependents.setdefault(ref, []).append(id)
    for ref, ids in dependents.items():
        more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
        models = f"{len(ids)} model{'s' * (len(ids) > 1)}"
        listed = f"{', '.join(ids[:_LISTED])}{more}"
        yield f"{ref} has other weights than {models} started from: {listed}"
