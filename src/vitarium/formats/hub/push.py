"""Upload a zoo to the Hugging Face hub."""

import fnmatch
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vitarium.core import files
from vitarium.core.errors import HubError, InvalidInput
from vitarium.core.filenames import user_path
from vitarium.core.hub_faults import hub_fault, quiet_hub
from vitarium.core.registry import get
from vitarium.core.scratch import temporary_folder
from vitarium.formats.export import check_installed, export
from vitarium.formats.weights import check_place, root_of
from vitarium.zoo import Zoo

_LEFT_OUT = (".*", "*/.*", "index/*")
"""Hidden files (locks, what uploads are resumed from), and the zoo's cache."""


class Upload(NamedTuple):
    """A file of the repository."""

    name: str
    bytes: int


def push(
    directory: Zoo | str | Path,
    repository: str,
    *,
    private: bool = False,
    license: str | None = None,
    dry_run: bool = False,
) -> list[Upload]:
    """Upload a folder of the exporter `hub`, or a zoo, for which a card is written first, as a data
    set, which is made if it is not there. Interrupted, the same call goes on.

    Args:
        repository: on the hub, e.g. "me/my-zoo".
        private: where the repository is made now, whether others see it.
        license: for the card of a zoo that has none.

    Returns the files, in order of their names. Raises InvalidInput for a missing library, token or
    card, NotAZoo, and HubError for what the hub refuses.
    """
    check_installed(get("exporter", "hub"))
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InvalidInput(f"'{repository}' is no name of a repository: {error}") from None
    uploads = []
    path = directory.path if isinstance(directory, Zoo) else user_path(directory)
    with _folder(path, license) as folder:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                check_place(file, root_of(folder))
                name = file.relative_to(folder).as_posix()
                if not any(fnmatch.fnmatch(name, pattern) for pattern in _LEFT_OUT):
                    uploads.append(Upload(name, file.stat().st_size))
        if not dry_run:
            _upload(folder, repository, private=private)
    return uploads


@contextmanager
def _folder(directory: Path, license: str | None) -> Iterator[Path]:
    """A folder with a card: the one that is given, or one of links to the zoo's files beside it."""
    if files.exists(directory / "README.md"):
        if license:
            remedy = "write the license into its README.md"
            raise InvalidInput(f"{directory} has a card already; {remedy}")
        yield directory
        return
    zoo = Zoo.open(directory)
    absolute = directory.absolute()
    # beside the zoo, its files need not be copied
    parent = absolute.parent if os.access(absolute.parent, os.W_OK) else None
    with temporary_folder(parent, prefix=".vitarium-push-") as beside:
        export(zoo, "hub", out=beside / absolute.name, license=license, link=True)
        yield beside / absolute.name


def _upload(folder: Path, repository: str, *, private: bool) -> None:
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        hint = "log in with `hf auth login`, or set the variable HF_TOKEN to a token that may write"
        raise InvalidInput(f"there is no token of the Hugging Face hub: {hint}")
    api: Any = huggingface_hub.HfApi(library_name="vitarium")
    # before version 2, it is another method that goes on after an interruption
    upload = getattr(api, "upload_large_folder", None) or api.upload_folder
    try:
        with quiet_hub():
            api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        data_set = {"repo_id": repository, "repo_type": "dataset"}
        upload(**data_set, folder_path=folder, ignore_patterns=list(_LEFT_OUT))
    except Exception as error:  # the library raises what its transports raise
        raise HubError(repository, hub_fault(error)) from error
