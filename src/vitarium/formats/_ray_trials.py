"""A folder that Ray Tune left of one training run: a trial.

    config.json or params.json     the configuration
    result.json                    a JSON object a line, one per training iteration
    checkpoint_000NNN/checkpoints  the state dict; an `optimizer` beside it is never opened

An epoch's number is the `training_iteration` of its line. A line says which checkpoint it wrote
(`checkpoint_dir_name`, since Ray 2.7, where folders are counted), else a folder's number is the
iteration. Where neither fits, but folders counted from zero would, the user has to say.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from vitarium.core import files
from vitarium.core.config import Config
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.formats._published_keys import is_contrastive, metric_name
from vitarium.formats.base import ForeignEpoch
from vitarium.formats.weights import check_place, read_shapes, read_weights

CONFIGURATIONS = ("config.json", "params.json")
WEIGHTS = "checkpoints"
_RAY_KEYS = """
training_iteration config date hostname node_ip pid trial_id experiment_id experiment_tag done
timestamp time_total_s time_since_restore timesteps_since_restore timesteps_total
iterations_since_restore episodes_total episodes_this_iter timesteps_this_iter
agent_timesteps_total num_env_steps_sampled_lifetime warmup_time should_checkpoint
checkpoint_dir_name
"""
BOOKKEEPING = frozenset(_RAY_KEYS.split())
"""What Ray itself writes into every line; it tells of machines, not of models."""
_Value = TypeVar("_Value", Tensor, torch.Size)


class Names(Protocol):
    """Gives tensors, or their shapes, other names."""

    def __call__(self, weights: dict[str, _Value], file: Path, /) -> dict[str, _Value]: ...


def _same(weights: dict[str, _Value], file: Path) -> dict[str, _Value]:
    return weights


class Trials(Config):
    """How the trials' checkpoints are numbered."""

    offset: int | None = Field(None, ge=-1, le=1)
    """Number to add to a checkpoint folder's number to get its training_iteration; default: as
    result.json says, else 0."""


class Trial(NamedTuple):
    """What is known of one training run; no weights are read yet."""

    path: Path
    root: Path
    config: Mapping[str, Any]
    lines: Mapping[int, Mapping[str, Any]]
    """What was measured, by training iteration; Ray's bookkeeping is left out."""
    checkpoints: Mapping[int, Path]  # files of weights by training iteration
    iterations: Mapping[int, int]  # training iteration by number of the checkpoint's folder
    done: bool  # as Ray wrote it
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its folder, as seen from what is imported."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def last(self) -> int:
        return max([*self.lines, *self.checkpoints], default=0)

    @property
    def initial_epoch(self) -> int | None:
        """Ray counts iterations from 1: where there are lines, iteration 0 is before training."""
        return 0 if self.lines and 0 in {*self.lines, *self.checkpoints} else None

    @property
    def is_finished(self) -> bool:
        """Whether it got as far as its configuration says, or nothing says how far."""
        epochs = self.config.get("training::epochs_train")
        return self.done or not isinstance(epochs, int) or self.last >= epochs

    @property
    def last_weights(self) -> Path | None:
        return self.checkpoints[max(self.checkpoints)] if self.checkpoints else None

    def epochs(self, names: Names = _same) -> list[ForeignEpoch]:
        """Every iteration of which there is a line or a checkpoint, its weights renamed."""
        contrastive = is_contrastive(self.config)

        def load(file: Path) -> dict[str, Tensor]:
            return names(read_weights(file, self.root), file)

        def shapes(file: Path) -> dict[str, torch.Size]:
            return names(read_shapes(file, self.root), file)

        epochs = []
        for number in sorted({*self.lines, *self.checkpoints}):
            line, file = self.lines.get(number, {}), self.checkpoints.get(number)
            metrics = {metric_name(k, contrastive=contrastive): v for k, v in line.items()}
            readers = (partial(load, file), partial(shapes, file)) if file else (None, None)
            epochs.append(ForeignEpoch(number, metrics, *readers))
        return epochs


def is_trial(path: Path) -> bool:
    names = (*CONFIGURATIONS, "result.json")
    return any((path / name).is_file() for name in names) or bool(_folders(path))


def read_trial(path: Path, root: Path, settings: Trials) -> Trial:
    """Raises CorruptFile that names file and line, InvalidInput where numbers do not fit, and
    UntrustedFile where a link leads out of `root`."""
    lines, notes = _lines(path / "result.json", root)
    folders = _folders(path)
    iterations = _iterations(path, list(folders), lines, settings.offset)
    checkpoints = {
        iterations[number]: folder / WEIGHTS
        for number, folder in folders.items()
        if (folder / WEIGHTS).is_file()
    }
    if len(checkpoints) < len(folders):
        notes.append(f"{len(folders) - len(checkpoints)} checkpoint folders hold no weights")
    if lines and (unscored := sorted(checkpoints.keys() - lines.keys())):
        notes.append(f"result.json has no line for the epochs {', '.join(map(str, unscored))}")
    measured = {
        number: {
            key: math.nan if value is None else value  # as Ray writes it
            for key, value in line.items()
            if key not in BOOKKEEPING and isinstance(value, int | float | None)
        }
        for number, line in lines.items()
    }
    config, done = _configuration(path, root, lines), bool(lines) and lines[max(lines)].get("done")
    return Trial(path, root, config, measured, checkpoints, iterations, done is True, tuple(notes))


def _configuration(path: Path, root: Path, lines: Mapping[int, Any]) -> Mapping[str, Any]:
    """From its file, else from where Ray repeats it in every line."""
    files_there = [path / name for name in CONFIGURATIONS if (path / name).is_file()]
    if files_there:
        check_place(files_there[0], root)
        try:
            config = files.read_json(files_there[0])
        except RecursionError:
            raise CorruptFile(files_there[0], "nested too deep") from None
    else:
        config = next((line.get("config") for line in lines.values()), None)
        if config is None:
            raise InvalidInput(f"{path} has neither {' nor '.join(CONFIGURATIONS)}")
    if not isinstance(config, dict):
        file = files_there[0] if files_there else path / "result.json"
        raise CorruptFile(file, f"a configuration is an object, not {config!r:.40}")
    return config


def _lines(path: Path, root: Path) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """Lines of result.json by training iteration, and notes."""
    if not path.is_file():
        return {}, ["it has no result.json: its epochs come without metrics"]
    check_place(path, root)
    notes, lines, broken = list[str](), dict[int, dict[str, Any]](), 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            if broken:
                raise CorruptFile(path, f"line {broken} is not a JSON object")
            try:
                line = files.parsed_json(text)
            except (ValueError, RecursionError):
                broken = number  # as a killed run leaves it, if it is the last
                continue
            iteration = line.get("training_iteration") if isinstance(line, dict) else None
            if not isinstance(iteration, int) or not 0 <= iteration < 10**9:
                raise CorruptFile(path, f"line {number} has no training_iteration")
            if iteration in lines:
                notes.append(f"iteration {iteration} stands twice in result.json; the last counts")
            lines[iteration] = line
    if broken:
        notes.append(f"the last line of result.json, {broken}, is broken off and was left out")
    return lines, notes


def _folders(path: Path) -> dict[int, Path]:
    """Checkpoint folders by their number, whether written 5 or 000005."""
    folders: dict[int, Path] = {}
    for folder in sorted(path.glob("checkpoint_*")):
        match = re.fullmatch(r"checkpoint_(\d{1,9})", folder.name)
        if match and folder.is_dir():
            number = int(match[1])
            if number in folders:
                raise InvalidInput(f"{folder} and {folders[number].name} have the same number")
            folders[number] = folder
    return dict(sorted(folders.items()))


def _iterations(
    path: Path, folders: list[int], lines: Mapping[int, Mapping[str, Any]], offset: int | None
) -> dict[int, int]:
    """Training iteration of each checkpoint folder, see the module's docstring."""
    if offset is not None:
        shifted = {number: number + offset for number in folders}
        if min(shifted.values(), default=0) < 0:
            raise InvalidInput(f"{path}: offset {offset} gives epoch -1; leave it out")
        return shifted
    iterations = {
        int(match[1]): number
        for number, line in lines.items()
        if (match := re.search(r"checkpoint_(\d{1,9})$", str(line.get("checkpoint_dir_name"))))
    }
    if iterations:
        steps = {iteration - number for number, iteration in iterations.items()}
        step = steps.pop() if len(steps) == 1 else 0
        if steps and (unnamed := sorted(set(folders) - iterations.keys())):
            raise InvalidInput(f"{path}: no line of result.json names checkpoint {unnamed[0]}")
        return {number: iterations.get(number, number + step) for number in folders}
    numbers = set(folders)
    if lines and not numbers <= lines.keys() and {n + 1 for n in numbers} <= lines.keys():
        raise InvalidInput(
            f"{path}: its checkpoints are numbered {min(numbers)} to {max(numbers)}, the lines of "
            f"result.json {min(lines)} to {max(lines)}; say how they belong together: offset=1 if "
            f"checkpoint {min(numbers)} is the state after iteration {min(numbers) + 1}, offset=0 "
            f"if it is the one after iteration {min(numbers)}"
        )
    return {number: number for number in folders}
