"""A zoo as a page for any web server: what `vitarium explore` shows, as files."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import Config
from vitarium.core.errors import VitariumError
from vitarium.formats.base import exporter
from vitarium.page import BUILT
from vitarium.page.answers import Refused, Reproduction
from vitarium.page.model_page import model_page, zoo_summary
from vitarium.page.models_table import models_table
from vitarium.page.reproduction import reproduction_page
from vitarium.zoo import Zoo


class Site(Config):
    """The site has no settings."""


@exporter("site")
def site(config: Site, zoo: Zoo, checkpoints: Sequence[CheckpointRef], out: Path) -> Iterator[Path]:
    """A web page over the zoo, read-only, for any static web server: no Python runs there.

    `index.html` is the page; `api/` has what it is told: the table of models, and of each model
    what is known of it, and how it is made again.
    Weights are not in it.
    """
    models = list(dict.fromkeys(checkpoint.model for checkpoint in checkpoints))
    summary = zoo_summary(zoo, path=zoo.path.name)
    _write(out / "api" / "zoo.json", {**summary, "models": len(models)})
    _write(out / "api" / "models.json", models_table(zoo, models))
    for id in models:
        _write(out / "api" / "models" / f"{id}.json", model_page(zoo, id, path=zoo.path.name))
        yield out / "api" / "models" / f"{id}.json"
        _write(out / "api" / "models" / id / "reproduction.json", _reproduction(zoo, id))
        yield out / "api" / "models" / id / "reproduction.json"
    yield from (out / "api" / name for name in ("zoo.json", "models.json"))
    for file in sorted(BUILT.iterdir()):
        if file.suffix != ".sha256":  # of the source, which tests compare
            yield Path(shutil.copy(file, out))


def _reproduction(zoo: Zoo, id: str) -> Reproduction | Refused:
    try:
        return reproduction_page(zoo, id, zoo.path.name)
    except VitariumError as error:
        return {"refused": str(error)}


def _write(file: Path, values: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, separators=(",", ":")), encoding="utf-8")
