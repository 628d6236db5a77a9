"""The earlier zoos of small CNNs (Schürholt et al. 2022, *Model Zoos*, arXiv 2209.14764).

    <zoo>/<trial>/{params.json, result.json, checkpoint_000NNN/checkpoints}

Nothing here builds those CNNs: their tensors come under their own names. `index_dict.json`, which
tells where a tensor stands in a flattened model, is not needed.
"""

from collections.abc import Iterator
from pathlib import Path

from vitarium.formats._published_keys import to_ours
from vitarium.formats._ray_trials import WEIGHTS, Trials, read_trial
from vitarium.formats.base import ForeignModel, importer
from vitarium.formats.importers._structure import last_height
from vitarium.formats.importers.vit_zoo import is_vit_zoo
from vitarium.formats.weights import read_shapes


class CnnZoo(Trials):
    """How the zoo is read."""

    stage: str = "training"
    """Stage of the imported models in the zoo's tables."""


def is_cnn_zoo(source: Path) -> bool:
    return not is_vit_zoo(source) and any(True for _ in _folders(source))


@importer("cnn_zoo", detects=is_cnn_zoo, paper="Schürholt et al. 2022, arXiv 2209.14764")
def cnn_zoo(config: CnnZoo, source: Path) -> Iterator[ForeignModel]:
    """The published zoos of small CNNs: folders of Ray Tune trials with factors and metrics."""
    for folder in _folders(source):
        trial = read_trial(folder, source, config)
        file = trial.last_weights
        yield ForeignModel(
            name=trial.name,
            stage=config.stage,
            epochs=trial.epochs(),
            num_outputs=last_height(read_shapes(file, trial.root)) if file else 0,
            settings=to_ours(trial.config),
            initial_epoch=trial.initial_epoch,
            finished=trial.is_finished,
            notes=trial.notes,
        )


def _folders(source: Path) -> Iterator[Path]:
    for pattern in ("*", "*/*"):
        for file in sorted(source.glob(f"{pattern}/params.json")):
            if any(file.parent.glob(f"checkpoint_*/{WEIGHTS}")):
                yield file.parent
