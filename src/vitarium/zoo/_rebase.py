"""Packs checkpoints anew that build on what is about to go; they stay the same bits."""

import re
from collections.abc import Collection, Iterator

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.zoo.checkpoint import Checkpoint
from vitarium.zoo.model_folder import ModelFolder
from vitarium.zoo.zoo import Zoo

_PACKED = re.compile(r"epoch-(\d+)\.packed")


def built_on(
    zoo: Zoo, gone: Collection[CheckpointRef], going: Collection[str]
) -> Iterator[CheckpointRef]:
    """Packed checkpoints whose base is in `gone`, except those of models in `going`.

    Raises CorruptFile for unreadable ones.
    """
    for id in zoo.ids():
        checkpoints = zoo.folder(id).checkpoints
        for file in files.listed(checkpoints.folder) if id not in going else ():
            match = _PACKED.fullmatch(file.name)
            if not match or (ref := CheckpointRef(id, int(match[1]))) in gone:
                continue
            base = Checkpoint(file, checkpoints.find).base
            if base and (base.model, base.epoch) in gone:
                yield ref


def rebase(folder: ModelFolder, epoch: int, gone: Collection[CheckpointRef]) -> None:
    """Let a packed checkpoint build on none of `gone`; it stays what it is, bit for bit."""
    packed = folder.checkpoints.packed(epoch)
    if epoch not in [e.number for e in folder.epochs() if e.checkpoint]:
        files.remove(packed, root=folder.path.parents[1])  # of an epoch that was not finished
    elif folder.checkpoints.plain(epoch).exists():  # who packed it was killed
        folder.unpack(epoch)
    else:
        folder.pack(epoch, without=gone)
