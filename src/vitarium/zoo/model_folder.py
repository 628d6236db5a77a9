"""One model of a zoo on disk.

    models/<id>/
      model.json             what it is: spec, outputs, classes, software; never changed
      epochs.jsonl           a line per finished epoch: metrics, and what its checkpoint holds
      checkpoints/epoch-0000.packed ...    or .safetensors, where they are kept plain
      progress-0007.safetensors   what resuming after epoch 7 needs; only while unfinished
      companions-0007.safetensors what its objective brought beside it; where that is kept
      records.jsonl          numbers that earlier versions measured, a line each
      result.json            written last: finished or diverged

An epoch is finished once its line stands in epochs.jsonl; that file is replaced as a whole, after
all that the line speaks of is on disk. So a crash at any moment loses the running epoch alone.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitarium.blueprint import Recipe, Spec, restored
from vitarium.blueprint.spec import is_complete
from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.registry import missing_allowed
from vitarium.core.version import installed_version
from vitarium.zoo import _ledger
from vitarium.zoo import _model_files as model_files
from vitarium.zoo._epoch_files import EpochFile
from vitarium.zoo._model_files import About, Epoch, Record, Status, read_description
from vitarium.zoo._sources import contents_now
from vitarium.zoo.checkpoint import MAX_DEPTH, Checkpoint
from vitarium.zoo.checkpoint_folder import CheckpointFolder
from vitarium.zoo.merged_checkpoint import merged

if TYPE_CHECKING:
    from torch import Tensor


class ModelFolder:
    """Reads a model's folder, and adds to it while the model is trained."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = CheckpointFolder(path.parent, path.name)
        self.progress_file = EpochFile(path, "progress")
        self.companions_file = EpochFile(path, "companions")
        self._zoo = path.parent.parent

    @property
    def exists(self) -> bool:
        """Whether the model is in the zoo, finished or not."""
        return files.exists(self.path / "model.json")

    def spec(self, description: dict[str, Any] | None = None) -> Spec:
        """Of its description, if that was read. Raises CorruptFile: damaged, or of another."""
        file = self.path / "model.json"
        try:
            with missing_allowed() as missing:
                spec = restored((description or read_description(self.path))["spec"])
        except (KeyError, InvalidConfig) as error:
            raise CorruptFile(file, f"no valid spec: {error}") from None
        if missing:  # ids leave out defaults, which only the plug-in knows
            spec.__dict__["id"] = self.path.name
        if spec.id != self.path.name:
            raise CorruptFile(file, f"its content has the id {spec.id}")
        return spec

    def factors(self) -> dict[str, Any]:
        """As `spec().factors()`; of what this version wrote, without importing any plug-in."""
        about = read_description(self.path)
        values, software = about["spec"], about["software"]
        version = installed_version()  # models that were imported name no version
        is_current = isinstance(software, dict) and software.get("vitarium", version) == version
        if about["format"] == 1 or not is_current or not is_complete(values):
            return self.spec(about).factors()  # fills in what an earlier version did not know
        if values["id"] != self.path.name:
            raise CorruptFile(self.path / "model.json", f"its content has the id {values['id']}")
        return dict(values)

    def about(self) -> About:
        """What is known of the model beside its recipe. Raises CorruptFile."""
        values = read_description(self.path)
        outputs, classes, software = values["num_outputs"], values["classes"], values["software"]
        texts = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if type(outputs) is not int or not texts or not isinstance(software, dict):
            raise CorruptFile(self.path / "model.json", "its outputs or classes make no sense")
        return About(outputs, tuple(classes), software)

    def epochs(self) -> list[Epoch]:
        """Finished epochs in order. Raises CorruptFile."""
        return model_files.read_epochs(self.path)

    def result(self) -> dict[str, Any] | None:
        """How the training ended: `status` and `message`; None while it has not."""
        file = self.path / "result.json"
        if not files.exists(file):
            return None
        result = files.read_sealed(
            file, format_1=lambda _: read_description(self.path)["format"] == 1
        )
        if result.keys() != {"status", "message"}:
            raise CorruptFile(file, f"it has {', '.join(result)} instead of a status and a message")
        return result

    @property
    def status(self) -> Status:
        """`training` until it is finished or has diverged."""
        result = self.result()
        return result["status"] if result else "training"

    def weights(self, epoch: int = -1) -> "dict[str, Tensor]":
        """The weights after `epoch`; -1: the last kept. Raises InvalidInput, CorruptFile."""
        return self.open(epoch).state_dict()

    def open_plain(self, epoch: int = -1) -> Checkpoint:
        """As `open`, with changes in factors (LoRA) merged into the weights; see `merged`."""
        return merged(self.open(epoch), self.spec)

    def open(self, epoch: int = -1) -> Checkpoint:
        """The checkpoint after `epoch` (-1: the last kept), as the model was trained.

        Raises InvalidInput for an epoch that is not kept, and CorruptFile.
        """
        return self.checkpoints.open(*self.checkpoint(epoch))

    def checkpoint(self, epoch: int = -1) -> tuple[int, str]:
        """Number of a kept epoch (-1: the last), SHA-256 of its checkpoint. Raises InvalidInput."""
        contents = {e.number: e.checkpoint for e in self.epochs() if e.checkpoint}
        if epoch == -1 and contents:
            epoch = max(contents)
        if epoch not in contents:
            epochs = model_files.ranges(list(contents)) or "none yet"
            fault = f"model {self.path.name} has no weights of epoch {epoch}; it has {epochs}"
            raise InvalidInput(fault)
        return epoch, contents[epoch]

    def records(self) -> list[Record]:
        """What earlier versions measured of the model; newer numbers are in `zoo.records`."""
        return model_files.read_lines(self.path, "records.jsonl", Record)

    def progress(self) -> "tuple[int, dict[str, Tensor]] | None":
        """The last finished epoch and the tensors to go on from; None before the first."""
        last = next(reversed(self.epochs()), None)
        if last is None or not last.progress:
            return None
        return last.number, self.progress_file.open(last.number, last.progress).state_dict()

    def companions(self) -> Checkpoint | None:
        """What the objective brought, after the last epoch; None: not kept. Raises CorruptFile."""
        contents = [(each.number, each.companions) for each in self.epochs() if each.companions]
        return self.companions_file.open(*contents[-1]) if contents else None

    def sweep(self) -> None:
        """Remove half-written files that a killed process left behind. Raises LeadsOutside."""
        files.check_inside(self.path, self._zoo)
        for file in filter(files.is_leftover, self.path.rglob("*")):
            files.unlink(file)

    def begin(self, spec: Spec, about: About) -> None:
        """Write down what the model is, before its first epoch. Raises LeadsOutside."""
        value = {"format": model_files.FORMAT, "spec": spec.factors(), **asdict(about)}
        if contents := contents_now(self.path.parent, value["spec"]):
            value["sources"] = contents
        files.write_sealed(self.path / "model.json", value, root=self._zoo)

    def commit(
        self,
        number: int,
        metrics: Mapping[str, float],
        weights: "Mapping[str, Tensor] | None",
        progress: "Mapping[str, Tensor] | None",
        companions: "Mapping[str, Tensor] | None" = None,
        *,
        plain: bool = False,
    ) -> None:
        """Add a finished epoch: all of it or, after a crash, nothing of it.

        Args:
            weights: what to keep as the epoch's checkpoint; None keeps none.
            progress: what a resumed run needs; None for the last epoch.
            companions: what the objective brought, in place of that of earlier epochs.
            plain: keep the checkpoint as it is, not packed, which takes memory for all of it.
        """
        checkpoint = resume = brought = None
        if weights is not None and plain:
            checkpoint = self.checkpoints.write_plain(number, weights)
        elif weights is not None:
            checkpoint = self.checkpoints.write(number, weights, self.bases(number))
        if progress is not None:
            resume = self.progress_file.write(number, progress)
        if companions is not None:
            brought = self.companions_file.write(number, companions)
        earlier = (epoch for epoch in self.epochs() if epoch.number < number)
        before = [replace(epoch, progress=None, companions=None) for epoch in earlier]
        self._write_epochs([*before, Epoch(number, dict(metrics), checkpoint, resume, brought)])

    def keep(self, number: int, weights: "Mapping[str, Tensor]") -> None:
        """Add a checkpoint to an epoch that is finished already."""
        self._name_content(number, self.checkpoints.write(number, weights, self.bases(number)))

    def pack(self, epoch: int, *, without: Collection[CheckpointRef] = ()) -> bool:
        """Keep a checkpoint packed, not plain; killed at any moment, one of the files is whole.

        One that is packed already is packed anew where its chain of bases is too long by now, or
        is not what the file says of it, because a base was kept plain when it was written; or where
        it builds on one of `without`.

        Returns whether it was written. Raises InvalidInput, DiskFull, LeadsOutside and CorruptFile.
        """
        checkpoint = self.open(epoch)
        if checkpoint.is_packed:
            depth, base = checkpoint.depth, checkpoint.base
            stays = base is None or (base.model, base.epoch) not in without
            if stays and depth <= MAX_DEPTH and depth == checkpoint.recorded_depth:
                if (plain := self.checkpoints.plain(epoch)).exists():  # who packed it was killed
                    checkpoint.check()
                    files.remove(plain, root=self._zoo)
                return False
            self.unpack(epoch)
            checkpoint = self.open(epoch)
        bases = [ref for ref in self.bases(epoch) if ref not in without]
        content = self.checkpoints.write(epoch, checkpoint.state_dict(), bases)
        if not checkpoint.is_sealed:  # of format 1, whose lines name the file's own checksum
            self._name_content(epoch, content)
        self._replace(checkpoint, self.checkpoints.packed(epoch))
        return True

    def unpack(self, epoch: int) -> bool:
        """Keep a checkpoint plain, not packed, as safely as `pack`; whether it was packed."""
        checkpoint = self.open(epoch)
        if checkpoint.is_packed:
            self.checkpoints.write_plain(epoch, checkpoint.state_dict())
            self._replace(checkpoint, self.checkpoints.plain(epoch))
        elif (packed := self.checkpoints.packed(epoch)).exists():  # who packed it was killed
            checkpoint.check()
            files.remove(packed, root=self._zoo)
        return checkpoint.is_packed

    def _replace(self, checkpoint: Checkpoint, path: Path) -> None:
        """Remove a checkpoint's file, once what was written in its place has been read back."""
        written = Checkpoint(path, self.checkpoints.find)
        written.check()
        if written.content != checkpoint.content:  # the checksums of all runs
            raise CorruptFile(path, f"it was just written, and is not what {checkpoint.path} holds")
        files.remove(checkpoint.path, root=self._zoo)

    def finish(self, status: Literal["finished", "diverged"], message: str = "") -> None:
        """Write down how the training ended, and drop what only resuming needed."""
        epochs = self.epochs()
        difference = _ledger.difference(self._zoo, self.path.name, epochs)
        result = {"status": status, "message": "; ".join(filter(None, (message, difference)))}
        files.write_sealed(self.path / "result.json", result, root=self._zoo)
        self.progress_file.remove_unnamed()
        self.companions_file.remove_unnamed(epochs)
        _ledger.forget(self._zoo, self.path.name)

    def drop(self, numbers: Collection[int]) -> None:
        """Remove the weights after these epochs, and files of epochs whose weights went before;
        nothing may build on them any more. Raises LeadsOutside and NotWritable."""
        if numbers:
            before, drop = self.epochs(), partial(replace, checkpoint=None)
            self._write_epochs([drop(e) if e.number in numbers else e for e in before])
        self.checkpoints.remove(e.number for e in self.epochs() if not e.checkpoint)

    def _name_content(self, number: int, content: str) -> None:
        before, named = self.epochs(), partial(replace, checkpoint=content)
        self._write_epochs([named(e) if e.number == number else e for e in before])

    def _write_epochs(self, epochs: list[Epoch]) -> None:
        lines = [epoch.line() for epoch in epochs]
        files.write_lines(self.path / "epochs.jsonl", lines, root=self._zoo)
        self.progress_file.remove_unnamed(epochs)
        self.companions_file.remove_unnamed(epochs)

    def bases(self, number: int) -> Iterator[CheckpointRef]:
        """What an epoch's checkpoint may build on, the best first.

        The k-th kept epoch builds on the one whose position is k with its lowest binary digit
        cleared: most are next to their base, and none is further than log2(k) steps from the first.
        The last epoch, which is what others start from and what is opened most, builds at once on
        what the model itself started from.
        """
        spec = self.spec()
        origin = spec.origin
        last = isinstance(origin, Recipe) and number == origin.epochs
        epochs = [e.number for e in self.epochs() if e.checkpoint and e.number < number]
        position = 0 if last else len(epochs)
        while position:
            position &= position - 1
            yield CheckpointRef(self.path.name, epochs[position])
        if spec.ingredients:
            yield spec.ingredients[0]
        elif spec.parent is not None:
            yield CheckpointRef(spec.parent, spec.parent_epoch or 0)
