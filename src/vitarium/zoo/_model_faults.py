"""The faults of one model: its description, its epochs, its weights, what it comes of."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitarium.blueprint import Spec
from vitarium.core import files
from vitarium.core.errors import CorruptFile, FileFault, InvalidInput, VitariumError
from vitarium.core.file_faults import fault
from vitarium.zoo import _ledger, annotations
from vitarium.zoo._lineage_faults import Fault, LineageFaults
from vitarium.zoo._model_files import EPOCH_FILES, Epoch
from vitarium.zoo._sources import sources
from vitarium.zoo.checkpoint import Checkpoint
from vitarium.zoo.model_folder import ModelFolder

_ID = re.compile("[0-9a-f]{12}")
_UNREAD = "unknown as long as it cannot be read"
Factors = dict[str, Any]
"""Of a model, as `ModelFolder.factors` gives them."""
Shapes = dict[str, dict[str, tuple[int, ...]]]
"""Of the tensors of each architecture, which is built once."""
_REGROW = (
    "remove the model and grow or import it again: the same seeds give it back, with the same "
    "versions, precision and threads"
)


class ModelFaults:
    """One model; a fault in one file does not hide those in others, unless it is model.json."""

    def __init__(
        self, zoo: Path, folder: ModelFolder, deep: bool, shapes: Shapes, lineage: LineageFaults
    ) -> None:
        self.zoo, self.folder, self.deep, self.shapes = zoo, folder, deep, shapes
        self.lineage = lineage
        self._result = folder.path / "result.json"

    def faults(self) -> list[Fault]:
        faults: list[Fault] = []

        def read(what: Callable[[], object], lost: str) -> object:
            try:
                return what()
            except (VitariumError, OSError) as error:
                faults.append(_fault(self.zoo, self.folder.path, error, lost))
                return None

        folder = self.folder
        try:
            there = folder.exists
        except FileFault as error:
            return [_fault(self.zoo, folder.path, error, _UNREAD)]
        if not _ID.fullmatch(folder.path.name) or not there:
            content = folder.path.rglob("*")
            if all(file.is_dir() or files.is_leftover(file) for file in content):
                return []
            lost = "what model it was; if nothing else is known of it, remove the folder"
            return [Fault(inside(self.zoo, folder.path), "it has no model.json", lost)]
        spec = read(self._factors, f"what the model is; {_REGROW}")
        read(folder.about, f"what the model is; {_REGROW}")
        epochs = read(folder.epochs, f"the metrics of its epochs; {_REGROW}")
        result = read(folder.result, "how its training ended; its epochs are whole")
        read(folder.records, "what was measured of it; measure it again")
        read(lambda: annotations.read(folder.path), "its tags and its note; remove the file")
        if isinstance(spec, dict) and isinstance(epochs, list):
            faults += self._check_epochs(spec, epochs, bool(result))
            faults += self._family(spec)
            for epoch in epochs:
                lost = "where the training was; its finished epochs are whole"
                if epoch.checkpoint:
                    lost = f"the weights of epoch {epoch.number}; {_REGROW}"
                read(lambda epoch=epoch: self._weights(epoch), lost)  # type: ignore[misc]
            lost = f"its companions; its weights are whole. To have them again: {_REGROW}"
            read(self._companions, lost)
            if self.deep and not faults and any(epoch.checkpoint for epoch in epochs):
                read(lambda: self._fits(folder.spec()), "its weights, as weights of this model")
            faults += self._unknown(spec)
        return list(dict.fromkeys(faults))

    def _factors(self) -> Factors:
        """As they stand in a file with a good checksum, without any plug-in. Raises CorruptFile."""
        factors = self.folder.factors()
        refs, planned = factors["ingredients"], factors.get("recipe", {}).get("epochs", 0)
        are_refs = isinstance(refs, list) and all(map(_is_ref, refs))
        if self.deep or not are_refs or type(planned) is not int:
            self.folder.spec()  # says what is wrong; whether its id is the hash of its content
        return factors

    def _check_epochs(self, spec: Factors, epochs: list[Epoch], ended: bool) -> Iterator[Fault]:
        file = inside(self.zoo, self.folder.path / "epochs.jsonl")
        numbers = [epoch.number for epoch in epochs]
        if numbers != sorted(set(numbers)):
            yield Fault(file, "its epochs are not in order", f"which is which; {_REGROW}")
        last = numbers[-1] if numbers else -1
        if "recipe" not in spec or spec["operator"]:
            if ended and not numbers:
                yield Fault(file, "it names no epoch", f"its weights; {_REGROW}")
            return
        planned: int = spec["recipe"]["epochs"]
        may_stop = bool(spec["recipe"].get("early_stopping")) and 0 < last < planned
        if ended and self.folder.status == "finished" and last != planned and not may_stop:
            yield Fault(file, f"it ends at epoch {last} of {planned}", f"the others; {_REGROW}")
        if not ended and 0 <= last < planned and not epochs[-1].progress and not may_stop:
            lost = f"where it was; {_REGROW}"
            yield Fault(file, f"nothing to go on from after epoch {last}", lost)

    def _family(self, spec: Factors) -> Iterator[Fault]:
        for source in sources(spec):
            if source.role == "teacher" or self.lineage.add_dependent(source, spec["id"]):
                continue
            try:
                ModelFolder(self.folder.path.parent / source.model).checkpoint(source.epoch or 0)
            except (VitariumError, OSError) as error:
                fault = error.fault if isinstance(error, CorruptFile) else str(error)
                text = f"it comes of model {source.model} after epoch {source.epoch}: {fault}"
                lost = "its lineage; its own weights may be whole"
                yield Fault(inside(self.zoo, self.folder.path), text, lost)
        self.lineage.add_changed(self.folder)

    def _weights(self, epoch: Epoch) -> None:
        if epoch.checkpoint:
            checkpoint = self.folder.checkpoints.open(epoch.number, epoch.checkpoint)
            try:
                self._check(checkpoint)
            except CorruptFile as error:
                if error.path == checkpoint.path:
                    raise
                if not self.lineage.add_checkpoint(error.path, checkpoint.path):
                    base = f"{inside(self.zoo, error.path)}, which is damaged: {error.fault}"
                    raise _BuildsOnDamage(checkpoint.path, f"it builds on {base}") from None
        if epoch.progress:
            path = self.folder.progress_file.path(epoch.number)
            # gone once a later epoch has its own, or training has ended: maybe just now
            is_last = self.folder.epochs()[-1].number == epoch.number
            if path.exists() or (is_last and not files.exists(self._result)):
                self._check(self.folder.progress_file.open(epoch.number, epoch.progress))

    def _companions(self) -> None:
        """Raises CorruptFile where they are not as they were written."""
        try:
            if companions := self.folder.companions():
                self._check(companions)
        except CorruptFile as error:
            # while it is trained: another epoch may have its own by now
            last = self.folder.epochs()[-1]
            if last.companions and error.path == self.folder.companions_file.path(last.number):
                raise

    def _check(self, checkpoint: Checkpoint) -> None:
        _ = checkpoint.depth  # opens all its bases
        checkpoint.check() if self.deep else checkpoint.check_stored()

    def _fits(self, spec: Spec) -> None:
        """Raises CorruptFile where the last weights are not those of such a model."""
        origin, num_outputs = spec.origin, self.folder.about().num_outputs
        sections = (origin.architecture, origin.head, getattr(origin, "adaptation", None))
        parts = [part and part.factors() for part in sections]
        merged = spec.operator is not None  # weights are plain, whatever adapted the ingredients
        key = json.dumps([num_outputs, merged, *parts])
        if key not in self.shapes:
            self.shapes[key] = {}
            with suppress(InvalidInput):  # nothing here builds it: nobody knows what fits
                tensors = origin.build(num_outputs, plain=merged).state_dict()
                self.shapes[key] = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes = self.shapes[key]
        in_file = {name: stored.shape for name, stored in self.folder.open().tensors.items()}
        if shapes and shapes != in_file:
            unlike = (n for n in sorted(shapes | in_file) if shapes.get(n) != in_file.get(n))
            raise CorruptFile(self.folder.path, f"weights do not fit the model: {next(unlike)}")

    def _unknown(self, spec: Factors) -> Iterator[Fault]:
        """Files that nothing speaks of, but for those that a killed process leaves behind."""
        names = {"model.json", "epochs.jsonl", "result.json", "records.jsonl", "checkpoints"}
        names.add(annotations.FILE)
        kinds = "|".join(EPOCH_FILES)
        for file in sorted(self.folder.path.glob("*")):
            of_epoch = re.fullmatch(rf"({kinds})-\d+\.safetensors", file.name)
            if file.name not in names and not of_epoch and not files.is_leftover(file):
                yield Fault(inside(self.zoo, file), "no file of a model", "nothing; remove it")
        checkpoints = {
            file: re.fullmatch(r"epoch-(\d+)\.(safetensors|packed)", file.name)
            for file in sorted(self.folder.checkpoints.folder.glob("*"))
        }
        expected = self._expected(spec, [int(match[1]) for match in checkpoints.values() if match])
        for file, match in checkpoints.items():
            if (match and int(match[1]) in expected) or files.is_leftover(file):
                continue
            lost = "nothing, if epochs.jsonl is whole; then remove it"
            yield Fault(inside(self.zoo, file), "no epoch of epochs.jsonl names it", lost)

    def _expected(self, spec: Factors, there: list[int]) -> set[int]:
        """Epochs that may have a checkpoint, of those that are there: it is written first."""
        ended = files.exists(self._result)  # before the epochs are read: then these are all
        epochs = self.folder.epochs()  # again: there may be one more by now
        kept_epochs = {epoch.number for epoch in epochs if epoch.checkpoint}
        # who removes weights names them in the ledger first, and removes their files last
        kept_epochs |= _ledger.contents(self.zoo, self.folder.path.name).keys()
        if ended:
            return kept_epochs
        last = epochs[-1].number if epochs else -1
        later = [number for number in there if number > last]
        # training goes on with the next one, an import may leave some out
        following = [last + 1] if "recipe" in spec else later[:1]
        # a model that diverges keeps the last of all, see `keep`
        return {*kept_epochs, *following, last}


def _is_ref(value: Any) -> bool:
    types = {"model": str, "epoch": int}
    return isinstance(value, dict) and {key: type(v) for key, v in value.items()} == types


class _BuildsOnDamage(CorruptFile):
    """A whole file that builds on a damaged one."""


def _fault(zoo: Path, folder: Path, error: Exception, lost: str) -> Fault:
    if isinstance(error, _BuildsOnDamage):
        lost = "its weights, until that file is restored, or its model grown again"
    if isinstance(error, CorruptFile):
        return Fault(inside(zoo, error.path), error.fault, lost)
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        path = Path(error.filename or folder)
        refusal = error if isinstance(error, FileFault) else fault(error, path, writing=False)
        return Fault(inside(zoo, refusal.path), str(refusal), _UNREAD)
    return Fault(inside(zoo, folder), str(error), lost)


def inside(zoo: Path, path: Path) -> str:
    return path.relative_to(zoo).as_posix() if path.is_relative_to(zoo) else str(path)
