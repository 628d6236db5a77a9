"""Jobs: a measure of a model or a pair, on which images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vitarium.core.errors import NotApplicable, VitariumError
from vitarium.core.registry import Section
from vitarium.data.loader import SplitName
from vitarium.evaluation.checkpoints import Pair, Target
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import Values
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner import settings
from vitarium.zoo.records import Measured


@dataclass(frozen=True)
class On:
    """The images that something is measured on; the fields are a record's."""

    data: str = ""
    split: str = ""
    num_images: int = 0
    images: str = ""
    trained_on: bool = False


@dataclass(frozen=True)
class Job:
    """A measure of one model, or of a pair."""

    section: Section
    settings: str
    """Of the section, as they stand in a record."""
    of: tuple[Target, ...]
    on: On

    @property
    def weights(self) -> str:
        return "+".join(target.weights for target in self.of)

    @property
    def key(self) -> tuple[object, ...]:
        """Identifies it among all jobs of the measure with these settings."""
        checkpoints = tuple((target.model, target.epoch) for target in self.of)
        return (*checkpoints, self.on.split, self.on.images, self.weights)

    def measured(self, values: Values) -> list[Measured]:
        """Raises NotApplicable where a value is not finite."""
        parts = values if isinstance(values, Mapping) else {"": values}
        wrong = [part for part, value in parts.items() if not abs(value) < float("inf")]
        if wrong:
            names = " and ".join(target.name for target in self.of)
            what = f" of {wrong[0]}" if wrong[0] else ""
            value = parts[wrong[0]]
            raise NotApplicable(f"{names}: {self.section.name}{what} is {value}")
        first, second = self.of[0], self.of[1] if len(self.of) > 1 else None
        unit, weights = self.section.plugin.facts["unit"], self.weights
        return [
            Measured(
                model=first.model,
                epoch=first.epoch,
                other=second.model if second else None,
                other_epoch=second.epoch if second else None,
                measure=self.section.name,
                settings=self.settings,
                part=part,
                value=float(value),
                unit=unit,
                data=self.on.data,
                split=self.on.split,
                num_images=self.on.num_images,
                images=self.on.images,
                trained_on=self.on.trained_on,
                weights=weights,
            )
            for part, value in parts.items()
        ]


def key_of(record: Measured) -> tuple[object, ...]:
    """The key of the job that computed a record."""
    checkpoints: list[tuple[object, ...]] = [(record.model, record.epoch)]
    if record.other is not None:
        checkpoints.append((record.other, record.other_epoch))
    return (*checkpoints, record.split, record.images, record.weights)


@dataclass(frozen=True)
class Refusal:
    """Why a measure has no value for a model, or a pair."""

    section: Section
    settings: str
    of: tuple[Target, ...]
    reason: str


@dataclass(frozen=True)
class Conditions:
    """Which images are used, and whether those that were trained on may be."""

    split: SplitName
    limit: int | None
    force: bool


def jobs(
    sources: ModelLoader,
    sections: Sequence[Section],
    targets: Sequence[Target],
    pairs: Sequence[Pair],
    conditions: Conditions,
) -> Iterator[Job | Refusal]:
    """Jobs of every measure; models first, each with all its measures, then pairs."""
    with_settings = [(section, settings.text(section)) for section in sections]
    singles = [entry for entry in with_settings if entry[0].plugin.facts["of"] == "model"]
    doubles = [entry for entry in with_settings if entry[0].plugin.facts["of"] == "pair"]
    for target in targets:
        for entry in singles:
            yield _job(sources, *entry, (target,), conditions)
    for entry in doubles:
        both_ways = not entry[0].plugin.facts["symmetric"]
        for pair in pairs:
            yield _job(sources, *entry, pair, conditions)
            if both_ways:
                yield _job(sources, *entry, pair[::-1], conditions)


def _job(
    sources: ModelLoader,
    section: Section,
    settings_text: str,
    of: tuple[Target, ...],
    conditions: Conditions,
) -> Job | Refusal:
    try:
        return Job(section, settings_text, of, _on(sources, section, of, conditions))
    except VitariumError as error:
        return Refusal(section, settings_text, of, str(error))


def _on(
    sources: ModelLoader, section: Section, of: tuple[Target, ...], conditions: Conditions
) -> On:
    """Raises NotApplicable, DataNotFound, InvalidData, CorruptFile."""
    facts = section.plugin.facts
    if facts["needs"] == "weights":
        return On()
    splits = facts["splits"] or (conditions.split,)
    of_targets = [
        [sources.examples(target.model, split, conditions.limit) for split in splits]
        for target in of
    ]
    images = ["".join(map(sources.images, examples)) for examples in of_targets]
    if len(set(images)) > 1:
        described = " and ".join(
            f"{target.name} ({_describe(examples[0])})"
            for target, examples in zip(of, of_targets, strict=True)
        )
        raise NotApplicable(
            f"{described} see different images, and are compared on the same ones; name one data "
            "set that fits both with --data"
        )
    trained_on = len(splits) == 1 and any(
        sources.trained_on(target.model, examples[0])
        for target, examples in zip(of, of_targets, strict=True)
    )
    first = of_targets[0]
    if trained_on and facts["held_out"] and not conditions.force:
        names = " and ".join(target.name for target in of)
        raise NotApplicable(
            f"{names}: trained on these images ({_describe(first[0])}), so that {section.name} "
            "would say nothing of new ones; --force measures and marks it"
        )
    return On(
        data=first[0].dataset.name,
        split="+".join(splits),
        num_images=sum(map(len, first)),
        images=images[0],
        trained_on=trained_on,
    )


def _describe(examples: EvalData) -> str:
    channels, height, width = examples.input_size
    return (
        f"{examples.dataset.name}/{examples.split}, {height} by {width} pixels in {channels} "
        f"channels, {examples.num_classes} classes"
    )
