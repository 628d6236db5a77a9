"""Weight files in a folder, read tensor by tensor. A file is open only while something is read of
it: ten thousand need no more descriptors than one, and one cut short meanwhile is an error."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitarium.core.errors import CorruptFile, VitariumError
from vitarium.core.progress import SILENT, Progress
from vitarium.core.weight_suffixes import INDEX, SAFETENSORS
from vitarium.evaluation.inputs import Weights
from vitarium.formats._names import to_timm
from vitarium.formats._state_dict import unwrapped
from vitarium.formats._weight_files import find_weight_files
from vitarium.formats.weights import check_place, read_state_dict, shards_of
from vitarium.zoo._format.container import Container
from vitarium.zoo._format.description import DTYPES

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_HUGGING_FACE_PATCHES = "embeddings.patch_embeddings.projection.weight"


class SafetensorsFile(Mapping[str, Tensor]):
    """Any safetensors file; its header is read now, a tensor when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises CorruptFile."""
        self.path = path
        self.entries = Container(path).entries
        self._start = path.stat().st_size - max((e.stop for e in self.entries.values()), default=0)

    def __getitem__(self, name: str) -> Tensor:
        """Raises CorruptFile where the file has become another."""
        entry = self.entries[name]
        return self._read_bytes(entry.start, entry.stop, entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """`tensor[start:stop]`, [stop - start, ...], and no more is read. Raises CorruptFile."""
        entry = self.entries[name]
        length, *rest = entry.shape
        stop = min(stop, length)
        row = (entry.stop - entry.start) // max(length, 1)
        chunk = self._read_bytes(entry.start + start * row, entry.start + stop * row, entry.dtype)
        return chunk.reshape(stop - start, *rest)

    def _read_bytes(self, start: int, stop: int, dtype: str) -> Tensor:
        buffer = np.empty(stop - start, np.uint8)
        unread = buffer.data
        try:
            # a third of the time that numpy.fromfile takes for a small tensor
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._start + start)
                while count := file.readinto(unread):
                    unread = unread[count:]
        except OSError as error:
            raise CorruptFile(self.path, f"cannot be read any more ({error})") from None
        if len(unread):
            raise CorruptFile(self.path, "it has become shorter since it was opened")
        kind: torch.dtype = getattr(torch, DTYPES[dtype])
        return torch.from_numpy(buffer).view(kind) if len(buffer) else torch.empty(0, dtype=kind)


class FileWeights(Weights):
    """A model in a file. Its sources are, by our name, the file's, one after the other: queries,
    keys and values of Hugging Face's models are one tensor in timm's."""

    def __init__(
        self, name: str, path: Path, file: Mapping[str, Tensor], sources: Mapping[str, list[str]]
    ) -> None:
        """Raises CorruptFile where tensors that are to be one do not fit."""
        super().__init__(name, file)
        self._file, self._sources = file, sources
        if isinstance(file, SafetensorsFile | ShardedFile):
            entries = {
                n: (getattr(torch, DTYPES[e.dtype]), e.shape) for n, e in file.entries.items()
            }
        else:
            entries = {n: (tensor.dtype, tuple(tensor.shape)) for n, tensor in file.items()}
        self._parts = {ours: [entries[part] for part in sources[ours]] for ours in sources}
        for ours, parts in self._parts.items():
            if len(parts) > 1 and len({(shape or (0, 0))[1:] for _, shape in parts}) > 1:
                raise CorruptFile(path, f"{', '.join(sources[ours])} cannot be one tensor, {ours}")

    def __getitem__(self, name: str) -> Tensor:
        parts = [self._file[part] for part in self._sources[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of its tensors of real numbers; none is read for it."""
        shapes = {}
        for name, parts in self._parts.items():
            if self.dtype(name).is_floating_point:
                shape = parts[0][1]
                rows = sum(part_shape[0] for _, part_shape in parts) if len(parts) > 1 else 0
                shapes[name] = (rows, *shape[1:]) if rows else shape
        return shapes

    def dtype(self, name: str) -> torch.dtype:
        return reduce(torch.promote_types, (dtype for dtype, _ in self._parts[name]))

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """`tensor[start:stop]`, [stop - start, ...], and no more is read."""
        parts = self._sources[name]
        if len(parts) == 1 and isinstance(self._file, SafetensorsFile | ShardedFile):
            return self._file.rows(parts[0], start, stop)
        return self[name][start:stop]


class ShardedFile(Mapping[str, Tensor]):
    """Safetensors files that are one model, by the index that names them."""

    def __init__(self, index: Path, root: Path) -> None:
        """Raises CorruptFile and UntrustedFile."""
        self._files = {
            name: file
            for file in map(SafetensorsFile, shards_of(index, root))
            for name in file.entries
        }
        self.entries = {name: file.entries[name] for name, file in self._files.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Raises CorruptFile where the file has become another."""
        return self._files[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """`tensor[start:stop]`, [stop - start, ...], and no more is read. Raises CorruptFile."""
        return self._files[name].rows(name, start, stop)


def load_folder(
    folder: Path, progress: Progress = SILENT
) -> tuple[dict[str, Weights], dict[str, str], dict[str, Path]]:
    """Models of a folder and the folders in it (hidden ones left out) by name, sorted: the path in
    the folder, without its suffix where that is no other's; why a file was left out; and files."""
    files, left_out = find_weight_files(folder)
    models: dict[str, Weights] = {}
    for done, (name, path) in enumerate(files.items()):
        progress.step("opening files", done, len(files))
        try:
            models[name] = open_weight_file(name, path, folder)
        except VitariumError as error:
            left_out[name] = str(error)
    return models, left_out, files


def open_weight_file(name: str, path: Path, folder: Path) -> FileWeights:
    """A file's model; a pickle is read as data and nothing of it is run. Names are without what the
    model was wrapped in, and timm's for Hugging Face's. Raises UntrustedFile, CorruptFile, and
    InvalidInput for a file of several models, or none."""
    if _SHARD.search(path.stem):
        why = "it is a shard, a part of a model, and the index that names all parts is missing"
        raise CorruptFile(path, f"{why} (model{path.suffix}{INDEX}, as save_pretrained writes it)")
    file: Mapping[str, Tensor]
    if path.name.endswith(f"{SAFETENSORS}{INDEX}"):
        file = ShardedFile(path, folder)
    elif path.suffix == SAFETENSORS:
        check_place(path, folder)
        file = SafetensorsFile(path)
    else:
        file = read_state_dict(path, folder, mapped=True).values
    # of pickles it is done already, which leaves nothing to undo
    originals, _ = unwrapped(list(file), path)
    if _HUGGING_FACE_PATCHES not in originals:
        sources = {ours: [before] for ours, before in originals.items()}
    else:
        # a tensor's place among all stands for it: so what is put together is seen in the result
        file_names = list(originals.values())
        indices = to_timm({ours: torch.tensor([index]) for index, ours in enumerate(originals)})
        sources = {ours: [file_names[index] for index in parts] for ours, parts in indices.items()}
    return FileWeights(name, path, file, sources)
