"""A zoo as a page for any web server: what `vitarium explore` shows, as files."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import Config
from vitarium.core.errors import VitariumError
from vitarium.encoders._runner.static_answers import static_answers
from vitarium.formats.base import exporter
from vitarium.page import BUILT
from vitarium.page.answers import Refused, Reproduction
from vitarium.page.epochs_table import epochs_table
from vitarium.page.model_page import model_page, zoo_summary
from vitarium.page.models_table import models_table
from vitarium.page.reproduction import reproduction_page
from vitarium.zoo import Zoo


class Site(Config):
    """Settings of the site."""

    embeddings: bool = True
    """With positions by weights for the map, and each model's nearest relatives. All weights are
    read for it."""


@exporter("site")
def site(config: Site, zoo: Zoo, checkpoints: Sequence[CheckpointRef], out: Path) -> Iterator[Path]:
    """A web page over the zoo, read-only, for any static web server: no Python runs there.

    `index.html` is the page; `api/` has what it is told: tables of models and of their epochs, and
    of each model what is known of it, and how it is made again. Weights are not in it, but where
    models lie by them, if `embeddings` says so.
    """
    models, api = list(dict.fromkeys(checkpoint.model for checkpoint in checkpoints)), out / "api"
    summary = {
        **zoo_summary(zoo, path=zoo.path.name),
        "models": len(models),
        "embeddings": config.embeddings,
    }
    for id in models:
        page = model_page(zoo, id, path=zoo.path.name)
        yield _written(api / "models" / f"{id}.json", page)
        yield _written(api / "models" / id / "reproduction.json", _reproduction(zoo, id))
    if config.embeddings:
        for name, answer in static_answers(zoo, checkpoints):
            yield _written(api / name, answer)
    yield _written(api / "zoo.json", summary)
    yield _written(api / "models.json", models_table(zoo, models))
    yield _written(api / "epochs.json", epochs_table(zoo, models))
    for file in sorted(BUILT.iterdir()):
        if file.suffix != ".sha256":  # of the source, which tests compare
            yield Path(shutil.copy(file, out))


def _reproduction(zoo: Zoo, id: str) -> Reproduction | Refused:
    try:
        return reproduction_page(zoo, id, zoo.path.name)
    except VitariumError as error:
        return {"refused": str(error)}


def _written(file: Path, values: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, separators=(",", ":")), encoding="utf-8")
    return file
