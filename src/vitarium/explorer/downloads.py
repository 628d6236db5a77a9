"""A model as a file for other programs; runs in the process of `worker`."""

import zipfile
from pathlib import Path
from typing import Literal

from vitarium.core.errors import NotApplicable
from vitarium.core.numerals import size
from vitarium.explorer.computation import Transient
from vitarium.zoo import Zoo

Format = Literal["timm", "safetensors"]
LAST = "last"
MAX_BYTES = 8_000_000_000
"""Of a model's weights; larger ones are exported where they lie."""


def download(zoo: Path, id: str, epoch: str, exporter: Format, folder: str) -> Transient:
    """Write a model after an epoch (`LAST`: its last kept) into a folder, as the exporter has it.

    The answer is the file's `path`, and the `name` that it is to have: of id and epoch alone.
    A folder of files becomes one archive (ZIP, not compressed: weights are not compressible).
    Raises UnknownName, CorruptFile, DiskFull, InvalidInput for an epoch that is not kept and a
    model for which the format has no place, and NotApplicable where it is too large.
    """
    from vitarium.formats.export import export  # takes torch, which the server does without

    opened = Zoo.open(zoo)
    number, _ = opened.folder(opened.find(id)).checkpoint(-1 if epoch == LAST else int(epoch))
    nbytes = opened.folder(id).open(number).nbytes
    if nbytes > MAX_BYTES:
        raise NotApplicable(
            f"{id} has {size(nbytes)} of weights; more than {size(MAX_BYTES)} are not downloaded "
            "here: export it, vitarium export"
        )
    out = Path(folder) / "export"
    written = export(opened, exporter, out=out, models=[f"{id}@{number}"])[0]
    if not written.is_dir():
        return Transient(path=str(written), name=written.name)
    archive = Path(folder) / f"{written.name}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(written.rglob("*")):
            file.write(path, path.relative_to(out))
    return Transient(path=str(archive), name=archive.name)
