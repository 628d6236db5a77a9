"""Vectors of the models of a zoo by a weight encoder."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.core.reasons import by_reason
from vitarium.core.registry import Section, choose
from vitarium.core.version import installed_version
from vitarium.encoders._runner.vectors import Vector, VectorCache, VectorSet, checksum, compute
from vitarium.evaluation.checkpoints import Epochs, targets
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.weight_subset import backbone
from vitarium.zoo import Zoo
from vitarium.zoo._model_files import model_stamps
from vitarium.zoo.listing import select
from vitarium.zoo.model import ModelNames

if TYPE_CHECKING:
    import pandas as pd

NO_WEIGHTS = "no weights of it are kept"


def encode(
    zoo: Zoo | str | Path,
    encoder: str = "random_projection",
    *,
    models: ModelNames | None = None,
    where: str = "",
    epochs: Epochs = "last",
    progress: Progress = SILENT,
    **settings: Any,
) -> "pd.DataFrame":
    """Vectors of models' weights, heads excluded: one row per checkpoint, float32 columns 0, 1, ...

        vectors = vitarium.encode("demo-zoo", "layer_quantiles", where="stage = 'finetune'")
        vectors.loc["3f2a0c41d9e7"]      # its rows by epoch; vectors.to_numpy() is [rows, dim]

    Vectors are kept in the zoo's folder `cache`, and computed only where that has none.

    Args:
        encoder: a weight encoder, see `vitarium plugins weight_encoder`; `settings` are its own.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3. None: all.
        where: of these, only models that fulfill this condition, as `vitarium ls` has it.
        epochs: "last", "all", an epoch or several; models that lack them are left out.
        progress: counts checkpoints.

    Raises UnknownName and InvalidConfig for the encoder; InvalidInput where no model has weights of
    such an epoch, or vectors cannot be compared; NotApplicable that lists models without a vector,
    and why.
    """
    import pandas as pd

    zoo, section = Zoo.open(zoo), choose("weight_encoder", encoder, **settings)
    refs = targets(zoo, select(zoo, models, where), epochs)
    result = encode_checkpoints(zoo, section, refs, progress=progress)
    if result.refused:
        reasons = by_reason((str(ref), why) for ref, why in result.refused.items())
        lines = "\n".join(f"  {line}" for line in reasons)
        what = f"{len(result.refused)} of {len(refs)} checkpoints have no vector; leave them out"
        raise NotApplicable(f"{what}, e.g. by {parameter('where', 'SQL')}:\n{lines}")
    if len({(vector.group, len(vector.values)) for vector in result.vectors.values()}) > 1:
        what = f"models of several architectures have vectors by {section.name} that cannot"
        raise InvalidInput(f"{what} be compared; encode those of one at a time")
    index = pd.MultiIndex.from_tuples(result.vectors, names=["model", "epoch"])
    values = np.stack([vector.values for vector in result.vectors.values()])
    return pd.DataFrame(values, index=index)


def encode_checkpoints(
    zoo: Zoo,
    encoder: Section,
    refs: Iterable[CheckpointRef],
    cache: VectorCache | None = None,
    *,
    store: bool = True,
    seconds: float | None = None,
    progress: Progress = SILENT,
) -> VectorSet:
    """The vector of every checkpoint; see `vectors.compute`.

    Args:
        cache: that of `vector_cache`, where it is open already.
    """
    loader, name = ModelLoader(zoo), checkpoint_names(zoo)
    takes_any = encoder.facts["any_architecture"]

    def vector(ref: CheckpointRef) -> Vector:
        weights = backbone(loader.weights(ref))
        values = encoder(weights).detach().to("cpu", torch.float32).numpy()
        return Vector(values, checksum("any" if takes_any else sorted(weights.shapes)))

    opened = cache or vector_cache(zoo, encoder)
    return compute(refs, opened, name, vector, store=store, seconds=seconds, progress=progress)


def checkpoint_names(zoo: Zoo) -> Callable[[CheckpointRef], str]:
    """Gives a checksum of a checkpoint's weights and of its model, which says what it is built by.

    That raises InvalidInput where the weights are not kept, and CorruptFile.
    """
    stamps = model_stamps(zoo.path)

    def name(ref: CheckpointRef) -> str:
        contents = _kept(zoo.path, ref.model, stamps.get(ref.model, ""))
        if ref.epoch not in contents:
            raise InvalidInput(NO_WEIGHTS)
        return checksum(ref.model, contents[ref.epoch])

    return name


def vector_cache(zoo: Zoo, encoder: Section) -> VectorCache:
    """The vectors of an encoder with its settings that are kept in the zoo."""
    return VectorCache(zoo.path, installed_version(), encoder.name, repr(encoder.factors()))


def last_checkpoints(zoo: Zoo) -> tuple[list[CheckpointRef], dict[CheckpointRef, str]]:
    """Every model after its last kept epoch, and models of which no weights are kept."""
    refs, missing = list[CheckpointRef](), dict[CheckpointRef, str]()
    for id, epochs in kept_epochs(zoo).items():
        if epochs:
            refs.append(CheckpointRef(id, epochs[-1]))
        else:
            missing[CheckpointRef(id, 0)] = NO_WEIGHTS
    return refs, missing


def kept_epochs(zoo: Zoo) -> dict[str, list[int]]:
    """Of every model, the epochs of which weights are kept, in order. Raises CorruptFile."""
    stamps = model_stamps(zoo.path)
    return {id: [*_kept(zoo.path, id, stamp)] for id, stamp in stamps.items()}


@lru_cache(maxsize=100_000)
def _kept(zoo: Path, id: str, stamp: str) -> Mapping[int, str]:
    """What a model's kept checkpoints hold, by epoch, in order.

    Remembered until its files change (`stamp`): reading them takes longer than all else where
    vectors are cached.
    """
    epochs = Zoo(zoo).folder(id).epochs()
    return dict(sorted((e.number, e.checkpoint) for e in epochs if e.checkpoint))
