"""A hub data set's parquet files, downloaded one by one, each kept as an Arrow copy alone."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import FileLock

from vitarium.core import files
from vitarium.core.errors import CorruptFile, DataNotFound, InvalidInput
from vitarium.core.file_faults import writing
from vitarium.core.hub_faults import hub_fault, quiet_hub
from vitarium.core.scratch import temporary_folder
from vitarium.data.datasets._arrow_copy import ArrowCopy, Columns, copy_path, is_there, write_copy

_ADDRESS = re.compile(r"hf://datasets/([^@]+)@([^/]+)/(.+\.parquet)")
"""Repository, revision and path of a file, as `datasets` lists it."""


def hub_files(
    name: str, config_name: str | None, revision: str | None, folder: Path
) -> Mapping[str, list[str]]:
    """Addresses of a data set's files, by split.

    They are asked for once, and kept in `folder`: a data set that changes on the hub stays here
    what it was. Raises DataNotFound, and InvalidInput for files that are not parquet.
    """
    key = hashlib.sha256(json.dumps([name, config_name, revision]).encode()).hexdigest()[:16]
    path = folder / f"hub-{key}.json"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            try:
                return dict(files.read_sealed(path)["files"])
            except (FileNotFoundError, CorruptFile, KeyError):
                listed = _listed(name, config_name, revision)
            files.write_sealed(path, {"dataset": name, "files": listed})
    return listed


def hub_copy(address: str, columns: Columns, folder: Path) -> ArrowCopy:
    """The copy of a file, which is downloaded unless it is there; the file itself is not kept.

    The address names a commit, so what it leads to never changes. Raises DataNotFound, InvalidData.
    """
    source = (address,)
    copy = ArrowCopy(copy_path(folder, Path(address).stem, source, columns), source)
    with writing(folder), FileLock(copy.path.with_suffix(".lock")):
        if not is_there(copy):
            with temporary_folder(folder, ".download-") as scratch:
                write_copy(_downloaded(address, scratch), columns, copy, address)
    return copy


def _listed(name: str, config_name: str | None, revision: str | None) -> dict[str, list[str]]:
    import datasets

    try:
        with quiet_hub():
            builder = datasets.load_dataset_builder(name, config_name, revision=revision)
        listed = {split: [*map(str, urls)] for split, urls in builder.config.data_files.items()}
    except Exception as error:  # the library raises what its transports raise
        raise DataNotFound(f"cannot get '{name}' from the hub: {hub_fault(error)}") from None
    for address in (address for urls in listed.values() for address in urls):
        if not _ADDRESS.fullmatch(address):
            what = f"streaming reads parquet files, but '{name}' has {address}"
            raise InvalidInput(f"{what}; set streaming to false")
    return listed


def _downloaded(address: str, scratch: Path) -> Path:
    import huggingface_hub

    match = _ADDRESS.fullmatch(address)
    assert match is not None
    repository, revision, path = match.groups()
    options: dict[str, Any] = {"repo_type": "dataset", "revision": unquote(revision)}
    try:
        with quiet_hub():
            file = huggingface_hub.hf_hub_download(repository, path, local_dir=scratch, **options)
    except Exception as error:  # the library raises what its transports raise
        raise DataNotFound(f"cannot get {address} from the hub: {hub_fault(error)}") from None
    return Path(file)
