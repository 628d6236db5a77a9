"""What is measured of a twin and of its original, and why something is not."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import InvalidInput, VitariumError, WriteFault
from vitarium.core.registry import section
from vitarium.engine.tuning.gain import Gain
from vitarium.evaluation.inputs import check_predictions
from vitarium.evaluation.latency import paired_seconds, threads
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner.cache import Cache
from vitarium.measures._runner.forward import Forward
from vitarium.measures._runner.jobs import Conditions
from vitarium.measures._runner.measure import measure
from vitarium.studies.base import Population
from vitarium.studies.twins.comparison import Family, Member
from vitarium.studies.twins.families import Twin

MEASURES = ("calibration_error", "parameters", "flops", "peak_memory")


@dataclass(frozen=True)
class Timing:
    """How models are timed: so many images at once, by so many threads, in pairs of runs."""

    threads: int
    batch_size: int
    runs: int
    device: str


class Measurements:
    """Measures families of twins; numbers and predictions are kept in the zoo."""

    def __init__(self, population: Population, loader: ModelLoader, timing: Timing) -> None:
        self.population, self.loader, self.timing = population, loader, timing
        self.zoo, self.cache = population.zoo, Cache(population.zoo.path)
        conditions = Conditions(population.split, population.num_images, force=False)
        self._forward = Forward(loader, conditions, [section("measure", "agreement")])

    def families(self, twins: Mapping[CheckpointRef, Sequence[Twin]]) -> list[Family]:
        """By original."""
        families = [
            Family(Member(original, None), [Member(twin.ref, twin) for twin in listed])
            for original, listed in twins.items()
        ]
        total, done = sum(len(family.members) for family in families), 0
        for family in families:
            for member in family.members:
                self.population.progress.step("predicting", done, total)
                self._predict(member, family.original)
                done += 1
        self._measure([member for family in families for member in family.members])
        done = 0
        for family in families:
            for member in family.twins:
                self.population.progress.step("timing", done, total - len(families))
                self._time(family.original, member)
                done += 1
        return families

    def _predict(self, member: Member, original: Member) -> None:
        split, limit = self.population.split, self.population.num_images
        try:
            examples = self.loader.examples(member.ref.model, split, limit)
            if self.loader.learned(member.ref.model, examples):
                raise InvalidInput(f"it was trained on images of the {split} split")
            predictions = self._forward.predictions(member.ref, split)
            check_predictions(predictions)
            if original.predictions is not None:
                check_predictions(original.predictions, predictions)
                reference = self.loader.examples(original.ref.model, split, limit)
                if self.loader.originals(reference) != self.loader.originals(examples):
                    raise InvalidInput("its images are not the original's")
        except VitariumError as error:
            member.missing["accuracy"] = str(error)
        else:
            member.predictions = predictions

    def _measure(self, members: Sequence[Member]) -> None:
        population, by_ref = self.population, {member.ref: member for member in members}
        table = measure(
            self.zoo,
            MEASURES,
            models=[str(ref) for ref in by_ref],
            split=population.split,
            num_images=population.num_images,
            data=population.data,
            normalization=population.normalization,
            device=population.device,
            data_dir=population.data_dir,
            progress=population.progress,
        )
        for row in table[table["part"] == ""].to_dict("records"):
            member = by_ref[CheckpointRef(row["model"], row["epoch"])]
            if row["refused"]:
                member.missing[row["measure"]] = row["refused"]
            else:
                member.values[row["measure"]] = row["value"]
        for member in members:
            checkpoint = self.zoo.checkpoint(*member.ref)
            member.values["bytes"] = checkpoint.nbytes
            member.values["bytes_in_zoo"] = checkpoint.path.stat().st_size

    def _time(self, original: Member, twin: Member) -> None:
        """A twin and its original in turn, once on a machine: times are kept in the zoo's cache."""
        key = ["latency", *(text for m in (original, twin) for text in self._named(m))]
        key += [repr(self.timing), torch.__version__, processor(self.timing.device)]
        try:
            if (cached := self.cache.get(*key)) is None:
                cached = {"seconds": torch.tensor(self._pair_seconds(original, twin))}
                self.cache.put(cached, *key)
        except WriteFault:
            raise
        except VitariumError as error:
            twin.missing["latency"] = str(error)
            return
        seconds = cached["seconds"].double().numpy()
        twin.speedup = Gain.of((seconds[:, 0] / seconds[:, 1]).tolist())
        twin.values["latency"] = median(seconds[:, 1].tolist())
        original.values.setdefault("latency", median(seconds[:, 0].tolist()))

    def _named(self, member: Member) -> tuple[str, str]:
        return str(member.ref), self.loader.content(member.ref)

    def _pair_seconds(self, original: Member, twin: Member) -> list[tuple[float, float]]:
        split, limit = self.population.split, self.population.num_images
        examples = self.loader.examples(original.ref.model, split, limit)
        batch = next(examples.batches(self.timing.batch_size)).images
        models = [self.loader.subject(m.ref, split, limit).model for m in (original, twin)]
        with threads(self.timing.threads):
            return paired_seconds(models[0], models[1], batch, self.timing.runs)


def processor(device: str) -> str:
    """The name of what models run on, as far as the system knows it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()
