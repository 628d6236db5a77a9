"""Jobs: a measure with its settings, of a model or a pair, on which images."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from vitarium.core import registry
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import InvalidConfig, Problem
from vitarium.core.errors import InvalidInput, NotApplicable, VitariumError, did_you_mean
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section, choose
from vitarium.data.loader import SplitName
from vitarium.evaluation.checkpoints import Pair
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import Values
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures.base import unit_of
from vitarium.zoo.records import Measured

Measures = str | Section | Iterable[str | Section]


class On(NamedTuple):
    """The images that something is measured on; the fields are a record's, in its order."""

    data: str = ""
    split: str = ""
    num_images: int = 0
    images: str = ""
    trained_on: bool = False


NO_IMAGES = On()


@dataclass(frozen=True)
class Conditions:
    """Which images are used; `force`: even those that were trained on."""

    split: SplitName
    limit: int | None
    force: bool


key_of = attrgetter("model", "epoch", "other", "other_epoch", "split", "images", "weights")
"""Identifies what a record is of, among all with the same measure and settings: a `Job.key`."""


@dataclass(frozen=True)
class Job:
    """A measure of one model, or of a pair; `refused` says why it has no value."""

    section: Section
    settings: str
    """Of the section, as they stand in a record."""
    of: tuple[CheckpointRef, ...]
    on: On = NO_IMAGES
    weights: str = ""
    refused: VitariumError | None = None

    @property
    def key(self) -> tuple[object, ...]:
        return (*_two(self.of), self.on.split, self.on.images, self.weights)

    def record(self, part: str = "", value: float = float("nan")) -> Measured:
        name, unit = self.section.name, unit_of(self.section.plugin.facts, part)
        fields: list[Any] = [*_two(self.of), name, self.settings, part, float(value), unit]
        fields += [*self.on, self.weights]
        return Measured(*fields)

    def measured(self, values: Values) -> list[Measured]:
        """Raises NotApplicable where a value is not finite."""
        parts = values if isinstance(values, Mapping) else {"": values}
        for part, value in parts.items():
            if not abs(value) < float("inf"):
                what = f"{self.section.name} of {part}" if part else self.section.name
                raise NotApplicable(f"{_names(self.of)}: {what} is {value}")
        return [self.record(part, value) for part, value in parts.items()]


def sections_of(
    measures: Measures, settings: Mapping[str, Any], num_images: int | None = None
) -> list[Section]:
    """The measures with their settings, `num_images` too; of several, each takes those it has.

    Raises UnknownName, InvalidConfig, and InvalidInput where none is named.
    """
    listed = [measures] if isinstance(measures, str | Section) else list(measures)
    names = list(dict.fromkeys(name for name in listed if isinstance(name, str)))
    sections = [section for section in listed if isinstance(section, Section)]
    if not listed:
        raise InvalidInput("name a measure; `vitarium plugins measure` lists them")
    fields = {name: registry.get("measure", name).config.model_fields for name in names}
    single = len(names) == 1 and not sections
    any_of = {field for fields_of_one in fields.values() for field in fields_of_one}
    problems = [
        Problem((), f"none of these measures has a setting '{name}'{did_you_mean(name, any_of)}")
        for name in settings
        if name not in any_of and not single
    ]
    if problems:
        raise InvalidConfig(problems)
    for name in names:
        accepted = {key: value for key, value in settings.items() if single or key in fields[name]}
        if num_images is not None and "num_images" in fields[name]:
            accepted.setdefault("num_images", num_images)
        sections.append(choose("measure", name, **accepted))
    return sections


def quick() -> list[str]:
    """The measures that take no more than a forward pass, and are of single models."""
    facts = {name: plugin.facts for name, plugin in registry.plugins("measure").items()}
    return [name for name in facts if facts[name]["quick"] and facts[name]["of"] == "model"]


def settings_text(section: Section) -> str:
    """Settings as they stand in a record: JSON, defaults included, keys in order."""
    return json.dumps(section.config.factors(), sort_keys=True)


def jobs(
    loader: ModelLoader,
    sections: Sequence[Section],
    models: Sequence[CheckpointRef],
    pairs: Sequence[Pair],
    conditions: Conditions,
) -> Iterator[Job]:
    """Jobs of every measure; models first, each with all its measures, then pairs."""
    of_models, of_pairs = (
        [(s, settings_text(s)) for s in sections if s.plugin.facts["of"] == kind]
        for kind in ("model", "pair")
    )

    def requested() -> Iterator[tuple[Section, str, tuple[CheckpointRef, ...]]]:
        for ref in models:
            yield from ((*section, (ref,)) for section in of_models)
        for section, settings in of_pairs:
            for pair in pairs:
                yield section, settings, pair
                if not section.plugin.facts["symmetric"]:
                    yield section, settings, pair[::-1]

    for section, settings, of in requested():
        try:
            on = _images_of(loader, section, of, conditions)
        except VitariumError as error:
            yield Job(section, settings, of, refused=error)
        else:
            yield Job(section, settings, of, on, "+".join(map(loader.content, of)))


def _images_of(
    loader: ModelLoader, section: Section, of: tuple[CheckpointRef, ...], conditions: Conditions
) -> On:
    """Raises NotApplicable, DataNotFound, InvalidData, CorruptFile."""
    facts = section.plugin.facts
    if facts["needs"] == "weights":
        return NO_IMAGES
    splits = facts["splits"] or (conditions.split,)
    examples = [[loader.examples(ref.model, s, conditions.limit) for s in splits] for ref in of]
    seen_by, first = list(zip(of, examples, strict=True)), examples[0]
    if len({tuple(map(loader.originals, by_split)) for by_split in examples}) > 1:
        described = " and ".join(f"{ref} ({_describe(seen[0])})" for ref, seen in seen_by)
        raise NotApplicable(
            f"{described} see different images, and are compared on the same ones; name one data "
            f"set: {parameter('data', 'NAME')}"
        )
    images = list(dict.fromkeys("".join(map(loader.images, by_split)) for by_split in examples))
    trained_on = len(splits) == 1 and any(
        loader.trained_on(ref.model, seen[0]) for ref, seen in seen_by
    )
    if trained_on and facts["held_out"] and not conditions.force:
        raise NotApplicable(
            f"{_names(of)}: trained on these images ({_describe(first[0])}), so that "
            f"{section.name} would say nothing of new ones; {parameter('force', True)} measures "
            "and marks it"
        )
    name = first[0].dataset.name
    return On(name, "+".join(splits), sum(map(len, first)), "+".join(images), trained_on)


def _two(of: tuple[CheckpointRef, ...]) -> tuple[Any, ...]:
    """Model and epoch of the first, and of the second, if there is one."""
    return (*of[0], *(of[1] if len(of) > 1 else (None, None)))


def _names(of: tuple[CheckpointRef, ...]) -> str:
    return " and ".join(map(str, of))


def _describe(examples: EvalData) -> str:
    return f"{examples.dataset.name}/{examples.split}, {examples.num_classes} classes"
