"""The contract of measures (`vitarium.measures.base`), checked."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vitarium.core.registry import get
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd

_IMAGES = 24
_KEYS = ["model", "other", "part"]
_TINY_ZOO = {
    "name": "tiny",
    "stages": {
        "pretrain": {
            "architecture": {
                "name": "vit",
                "img_size": 8,
                "patch_size": 4,
                "in_chans": 1,
                "embed_dim": 16,
                "depth": 1,
                "num_heads": 2,
            },
            "data": {"name": "digits", "train_limit": 96},
            "epochs": 1,
            "batch_size": 32,
        },
        "finetune": {
            "start": "pretrain",
            "data": {"name": "digits", "split_seed": 1, "train_limit": 64},
            "epochs": 1,
            "batch_size": 32,
            "grid": {"optimizer.lr": [0.01, 0.001]},
        },
    },
}
"""A blueprint of a model on scikit-learn's digits and two that are fine-tuned from it."""


def check_measure(name: str, zoo: Zoo | None = None) -> None:
    """Check a measure by its contract: it is described, deterministic, and computed once.

    Args:
        name: of a registered measure. It is measured with its settings `tiny` on 24 images.
        zoo: where; its first model with a parent and that one's siblings are measured, and the
            numbers are added to its records. None: a zoo of tiny models on scikit-learn's digits,
            grown once per process in a few seconds.

    Raises AssertionError that names the measure and the rule that it breaks.
    """
    plugin = get("measure", name)
    line = plugin.summary
    _require(name, 10 < len(line) <= 100, "its docstring begins with a line of 10 to 100 letters")
    _require(name, line.endswith("."), "the first line of its docstring is a sentence")
    _require(name, bool(plugin.facts["unit"]), "it has a unit")
    _require(name, bool(plugin.facts["title"]), "it has a title")
    zoo = zoo or tiny_zoo()
    values = _measured(name, zoo, overwrite=True)
    reasons = values.loc[values["refused"] != "", "refused"].unique()
    _require(name, not len(reasons), f"it has values for siblings, not: {'; '.join(reasons)}")
    per_model = 1 if plugin.facts["of"] == "pair" and plugin.facts["symmetric"] else 2
    _require(name, values["model"].nunique() == per_model, "it has a value for each model or pair")
    again = _measured(name, zoo, overwrite=True)
    _require(name, again.equals(values), "it gives the same bits when it is computed again")
    stored = _measured(name, zoo, overwrite=False)
    same = stored.sort_values(_KEYS, ignore_index=True).equals(
        values.sort_values(_KEYS, ignore_index=True)
    )
    _require(name, same, "its numbers are read from the zoo as they were computed")


def tiny_zoo() -> Zoo:
    """Three tiny models on scikit-learn's digits, grown once per process."""
    return Zoo.open(_grown())


def _require(name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(f"measure '{name}' breaks the contract: {rule}")


def _measured(name: str, zoo: Zoo, *, overwrite: bool) -> "pd.DataFrame":
    """Numbers of two siblings, each by itself or as a pair."""
    from vitarium import measure

    specs = {id: zoo.spec(id) for id in zoo.ids()}
    parent = next(spec.parent for spec in specs.values() if spec.parent)
    siblings = [id for id, spec in specs.items() if spec.parent == parent][:2]
    tiny = get("measure", name).facts["tiny"]
    return measure(zoo, name, models=siblings, num_images=_IMAGES, overwrite=overwrite, **tiny)


@cache
def _grown() -> Path:
    """A tiny zoo, which is removed when Python ends."""
    from vitarium import Blueprint, grow

    folder = tempfile.mkdtemp(prefix="vitarium-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "zoo"
    grow(Blueprint.read(_TINY_ZOO), path, workers=0, progress=False)
    return path
