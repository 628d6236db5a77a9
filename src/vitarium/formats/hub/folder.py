"""A whole zoo as a data set of the Hugging Face hub: with tables, figures and a card."""

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from vitarium.core import files
from vitarium.core.config import NoConfig
from vitarium.core.printable import encodable
from vitarium.formats.base import Checkpoints, exporter
from vitarium.formats.exporters.safetensors import safetensors_files
from vitarium.formats.hub._card import CardSettings, card, draw
from vitarium.formats.summary import Population, population, text
from vitarium.formats.weights import check_place, root_of
from vitarium.zoo import Zoo, growth_status, studies

OURS = ("README.md", "tables", "figures")  # what an export adds to a zoo's own files
_CACHES = ("index", "index.json", "cache", "timeline.json", "logs", growth_status.FILE, "failures")
_NOT_COPIED = (*OURS, *_CACHES, "models", studies.FOLDER)
"""Of a zoo's folder; models and studies are copied by themselves."""


class HubFolder(CardSettings):
    """What of the zoo goes into the folder, and what its card says."""

    weights: Literal["zoo", "safetensors"] = "zoo"
    """Format of the weights. zoo: the zoo's own files, so that the download is a zoo, with all kept
    epochs of the chosen models and their ancestors; safetensors: one file per chosen model."""
    link: bool = False
    """Make hard links instead of copies, which take no space; the zoo's files are never written
    again."""


@exporter("hub", needs=("huggingface_hub",), extra="vitarium[hub]")
def hub_folder(config: HubFolder, zoo: Zoo, models: Checkpoints, out: Path) -> Iterator[Path]:
    """A data set for the Hugging Face hub: the zoo with tables, figures and a card; see `push`."""
    ids = {checkpoint.model for checkpoint in models}
    is_zoo = config.weights == "zoo"
    if is_zoo:
        ids = _with_ancestors(zoo, ids)
        yield from _copy(zoo, ids, out, link=config.link)
    else:
        (out / "weights").mkdir()
        yield from safetensors_files(NoConfig(), zoo, models, out / "weights")
    described = population(zoo, ids)
    yield from _tables(described, out / "tables")
    yield from draw(described, out / "figures")
    software = {id: zoo.folder(id).about().software for id in sorted(ids)}
    name = encodable(config.name or zoo.path.absolute().name)
    readme = out / "README.md"
    text = card(described, config, name=name, is_zoo=is_zoo, software=software)
    readme.write_text(text, encoding="utf-8")
    yield readme


def _with_ancestors(zoo: Zoo, ids: Collection[str]) -> set[str]:
    """The models and all that they descend from or are made of."""
    ancestors: set[str] = set()
    waiting = list(ids)
    while waiting:
        if (id := waiting.pop()) not in ancestors:
            ancestors.add(id)
            spec = zoo.spec(id)
            waiting += [spec.parent] if spec.parent else []
            waiting += [ingredient.model for ingredient in spec.ingredients]
    return ancestors


def _copy(zoo: Zoo, ids: Collection[str], out: Path, *, link: bool) -> Iterator[Path]:
    """The zoo's files as they are, but for caches and what only resuming needs, and for studies,
    which may speak of other models, where these are not all.

    Raises UntrustedFile for a link that leads out of the zoo: nobody meant to publish that file.
    """
    root = root_of(zoo.path)

    def copy(source: Path, target: Path) -> None:
        """A folder comes without its rights: a copy of a read-only zoo can be changed."""
        if source.is_dir():
            target.mkdir(parents=True)
            for item in files.listed(source):
                if not item.name.startswith((".", "progress-")):  # of who writes, or goes on
                    copy(item, target / item.name)
            return
        check_place(source, root)
        if link:
            try:
                os.link(source.resolve(), target)  # Linux would link a link, to nowhere
                return
            except OSError:  # another disk, another user's file, or a disk that knows no links
                pass
        shutil.copyfile(source, target)

    for item in sorted(zoo.path.iterdir()):
        if item.name.startswith(".") or item.name in _NOT_COPIED:
            continue
        copy(item, out / item.name)
        yield out / item.name
    if (zoo.path / studies.FOLDER).is_dir() and studies.have_all(zoo, ids):
        copy(zoo.path / studies.FOLDER, out / studies.FOLDER)
        yield out / studies.FOLDER
    for id in sorted(ids):
        copy(zoo.folder(id).path, out / "models" / id)
        yield out / "models" / id


def _tables(described: Population, folder: Path) -> Iterator[Path]:
    import pandas as pd

    folder.mkdir()
    models = [dict(model.row) for model in described.models]
    epochs = [
        {"id": model.row["id"], "stage": model.stage, **epoch}
        for model in described.models
        for epoch in model.epochs
    ]
    for name, rows in (("models", models), ("epochs", epochs)):
        file = folder / f"{name}.parquet"
        frame = pd.DataFrame(rows)
        for column in frame:
            frame[column] = _of_one_type(frame[column].tolist())
        frame.to_parquet(file, index=False)
        yield file


def _of_one_type(values: list[Any]) -> list[Any]:
    """As parquet wants a column: numbers, or true and false, or else texts; None for blanks."""
    cells = [None if value != value else value for value in values]  # NaN is not itself
    kinds = {type(value) for value in cells if value is not None}
    if kinds <= {bool} or kinds <= {int} or kinds <= {str}:
        return cells
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in cells]
    return [None if value is None else text(value) for value in cells]
