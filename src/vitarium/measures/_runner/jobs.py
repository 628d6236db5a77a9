"""What is to be measured: a measure, of a model or a pair, on which images."""

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
        """Tells what it is of from all else that the measure with these settings is of."""
        places = tuple((target.model, target.epoch) for target in self.of)
        return (*places, self.on.split, self.on.images, self.weights)

    def measured(self, values: Values) -> list[Measured]:
        """Raises NotApplicable where a value is not finite."""
        parts = values if isinstance(values, Mapping) else {"": values}
        wrong = [part for part, value in parts.items() if not abs(value) < float("inf")]
        if wrong:
            names = " and ".join(target.name for target in self.of)
            what = f" of {wrong[0]}" if wrong[0] else ""
            value = parts[wrong[0]]
            raise NotApplicable(f"{names}: {self.section.name}{what} is {value}")
        first, other = self.of[0], self.of[1] if len(self.of) > 1 else None
        unit, weights = self.section.plugin.facts["unit"], self.weights
        return [
            Measured(
                model=first.model,
                epoch=first.epoch,
                other=other.model if other else None,
                other_epoch=other.epoch if other else None,
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


def key_of(one: Measured) -> tuple[object, ...]:
    """The key of the job that gave this."""
    places: list[tuple[object, ...]] = [(one.model, one.epoch)]
    if one.other is not None:
        places.append((one.other, one.other_epoch))
    return (*places, one.split, one.images, one.weights)


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
    """Every measure of everything that it can be of; models first, each with all its measures."""
    told = [(one, settings.text(one)) for one in sections]
    singles = [each for each in told if each[0].plugin.facts["of"] == "model"]
    doubles = [each for each in told if each[0].plugin.facts["of"] == "pair"]
    for target in targets:
        for each in singles:
            yield _job(sources, *each, (target,), conditions)
    for each in doubles:
        both_ways = not each[0].plugin.facts["symmetric"]
        for pair in pairs:
            yield _job(sources, *each, pair, conditions)
            if both_ways:
                yield _job(sources, *each, pair[::-1], conditions)


def _job(
    sources: ModelLoader, one: Section, told: str, of: tuple[Target, ...], conditions: Conditions
) -> Job | Refusal:
    try:
        return Job(one, told, of, _on(sources, one, of, conditions))
    except VitariumError as error:
        return Refusal(one, told, of, str(error))


def _on(sources: ModelLoader, one: Section, of: tuple[Target, ...], conditions: Conditions) -> On:
    """Raises NotApplicable, DataNotFound, InvalidData, CorruptFile."""
    facts = one.plugin.facts
    if facts["needs"] == "weights":
        return On()
    splits = facts["splits"] or (conditions.split,)
    shown = [
        [sources.examples(target.model, split, conditions.limit) for split in splits]
        for target in of
    ]
    images = [["".join(map(sources.images, each))] for each in shown]
    if any(other != images[0] for other in images):
        told = " and ".join(f"{t.name} ({_told(e[0])})" for t, e in zip(of, shown, strict=True))
        raise NotApplicable(
            f"{told} see different images, and are compared on the same ones; name one data set "
            "that fits both with --data"
        )
    trained_on = len(splits) == 1 and any(
        sources.trained_on(target.model, each[0]) for target, each in zip(of, shown, strict=True)
    )
    if trained_on and facts["held_out"] and not conditions.force:
        names = " and ".join(target.name for target in of)
        raise NotApplicable(
            f"{names}: trained on these images ({_told(shown[0][0])}), so that {one.name} would "
            "say nothing of new ones; --force measures and marks it"
        )
    return On(
        data=shown[0][0].dataset.name,
        split="+".join(splits),
        num_images=sum(map(len, shown[0])),
        images=images[0][0],
        trained_on=trained_on,
    )


def _told(examples: EvalData) -> str:
    channels, height, width = examples.input_size
    return (
        f"{examples.dataset.name}/{examples.split}, {height} by {width} pixels in {channels} "
        f"channels, {examples.num_classes} classes"
    )
