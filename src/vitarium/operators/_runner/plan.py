"""One combination of models: what it will be, its weights, and its place in the zoo."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.blueprint import CheckpointRef
from vitarium.blueprint.spec import differing_factors
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.file_faults import check_writable
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section
from vitarium.core.scratch import disk_buffer, scratch
from vitarium.evaluation.batch_statistics import joined, recount, statistics_of
from vitarium.evaluation.compatible import mismatch
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.scoring import load
from vitarium.evaluation.weight_subset import WeightSubset
from vitarium.operators._runner.bases import common_head, common_parent
from vitarium.operators._runner.buffers import Buffers
from vitarium.operators._runner.choose import changeable_architectures
from vitarium.operators._runner.factors import combined_layers, nearest_factors, with_matrices
from vitarium.operators._runner.heads import Heads
from vitarium.operators._runner.images import check_images_alike
from vitarium.operators._runner.results import fitting, software_of, stored
from vitarium.operators.base import Ingredients, OperatorLog, check_alike
from vitarium.zoo.lock import bases_stay
from vitarium.zoo.model import ModelName

IN_MEMORY = 128_000_000
"""Bytes up to which a result is held in memory, and packed when it is kept; one that is larger lies
in a folder of the zoo meanwhile, mapped into memory: the system writes it out for room."""


class MergePlan:
    """What an operator is to make of checkpoints; nothing is computed before it is asked for.

    Args:
        base, heads, force: see `operators._runner.merge.merge`.
        stage: what the result is called in the zoo's tables.
        weights: weights in the place of the ingredients' own, in their order, e.g. rearranged ones
            that are nowhere kept. The spec does not tell of them: do not keep such a model.

    Raises InvalidInput and IncompatibleWeights for what cannot be combined.
    """

    def __init__(
        self,
        sources: ModelLoader,
        operator: Section,
        ingredients: tuple[CheckpointRef, ...],
        *,
        base: ModelName | None = None,
        heads: str = "merge",
        stage: str = "merge",
        force: bool = False,
        weights: Sequence[Weights] | None = None,
    ) -> None:
        self.sources, self.operator, self.chosen = sources, operator, ingredients
        self.zoo, self.force, self.facts = sources.zoo, force, operator.plugin.facts
        self.log = OperatorLog()
        architectures = changeable_architectures(self.zoo, ingredients)
        models = list(weights or [sources.weights(ref) for ref in ingredients])
        self.heads = Heads(sources, ingredients, models, heads)
        self.models = [self.heads.backbone(model) for model in models]
        for model in self.models[1:]:
            self._check_combinable(model, head=self.heads.shared)
        if self.heads.origin:  # the result is built as that model is
            source = self.heads.backbone(sources.weights(self.heads.origin))
            self._check_combinable(source, head=False)
        self.layers = combined_layers(operator, self.models[0])
        """Those with factors, whose matrices are combined."""
        self.models = [with_matrices(model, self.layers) for model in self.models]
        self.buffers = Buffers(self.models, aligns=self.facts["aligns"])
        origin = self.heads.origin or ingredients[self.facts["origin"]]
        self._folder = self.zoo.folder(origin.model)
        """Of the model whose recipe the result has."""
        self.about = self._folder.about()
        if base is not None and not self.facts["needs_base"]:
            raise InvalidInput(f"{operator.name} has no use for a base")
        self.base = None if base is None else self.zoo.at(base)
        if self.facts["needs_base"] and not self.base:
            self.base = common_parent(self.zoo, operator.name, ingredients)
        spec, changes = self._folder.spec(), dict(self.heads.changes)
        try:
            if settle := self.facts["settled"]:
                operator = replace(operator, config=settle(operator.config, self.subject(0)))
                self.operator = operator
            if change := self.facts["architecture"]:
                changes["architecture"] = change(operator.config, *architectures)
        except IncompatibleWeights as error:
            raise IncompatibleWeights(f"{self.models[0].name}: {error}") from None
        if (change := self.facts["head"]) and not self.heads.separate:
            changes["head"] = change(operator.config, spec.origin.head)
        self.spec = spec.combined(
            operator,
            ingredients,
            stage=stage,
            base=self.base,
            heads=self.heads.label,
            changes=changes,
            differing=self._differing(),
        )

    def _differing(self) -> list[str]:
        """The factors in which ingredients differ; what the result is built of is its own."""
        factors = [self.zoo[ref.model].factors for ref in self.chosen]
        names = differing_factors([_without_operator(values) for values in factors])
        origin, own = self._folder.spec().origin, set[str]()
        for section in filter(None, (origin.architecture, origin.head)):
            acts_in_training = section.facts.get("training_factors", ())
            own |= {
                name
                for name in names
                if name.partition(".")[0] == section.kind
                and name.partition(".")[2] not in acts_in_training
            }
        return [name for name in names if name not in own]

    def save(self, progress: Progress = SILENT) -> str:
        """Compute it and keep it in the zoo, unless it is there; its id.

        The stage is no part of what a model is: one that is there under another keeps that, with a
        warning. Raises NotWritable at once, and DiskFull.
        """
        folder = self.zoo.folder(self.spec.id)
        if folder.result():
            if (stage := folder.spec().stage) != self.spec.stage:
                warnings.warn(
                    f"model {self.spec.id} is in the zoo already, of stage '{stage}': it stays "
                    f"there, and none of stage '{self.spec.stage}' is made",
                    stacklevel=3,
                )
            return self.spec.id
        check_writable(folder.path)
        with ExitStack() as stack:
            large = self.models[0].nbytes > IN_MEMORY
            buffer = stack.enter_context(disk_buffer(self.zoo.path / "cache")) if large else None
            weights = self.weights(progress, buffer)
            stack.enter_context(bases_stay(self.zoo.path))
            folder.begin(self.spec, replace(self.about, software=software_of(self.sources.device)))
            folder.commit(0, self.log.metrics, weights, None, plain=large)
            folder.finish("finished", "; ".join(self.log.lines))
        return self.spec.id

    def weights(self, progress: Progress = SILENT, buffer: Path | None = None) -> dict[str, Tensor]:
        """The merged weights, tensors [*shape] by name: in files of a folder, or in memory."""
        if self.buffers.statistics and self.facts["split"]:
            self._check_images("counts statistics of batch normalizations")
        ingredients = Ingredients(
            self.models,
            base=(lambda: self._base_weights) if self.base else None,
            model=self.model,
            examples=self.examples if self.facts["split"] else None,
            subject=self.subject if self.facts["split"] else None,
            symmetries=self.symmetries,
            buffers=self.buffers.names,
            progress=progress,
            task=self.operator.name,
        )
        merged: dict[str, Tensor] = {}
        layers = {} if self.facts["architecture"] else self.layers
        tensors = self.operator(ingredients)
        for name, tensor in nearest_factors(tensors, layers, self._stored, ingredients.log):
            if buffer and tensor.numel():
                mapped = scratch(buffer / str(len(merged)), tensor.numel(), tensor.dtype)
                tensor = mapped.view(tensor.shape).copy_(tensor)
            merged[name] = tensor
        self.log = ingredients.log
        merged |= self.buffers.copied()
        merged |= {n: self._stored(n, t) for n, t in self._statistics(merged, ingredients).items()}
        merged |= {n: self._stored(n, t) for n, t in self.heads.tensors().items()}
        return self._fitting(merged) if self.facts["architecture"] else merged

    def _fitting(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `fitting`, by what the result's architecture has."""
        with meta_device():
            built = self.spec.origin.build(self.about.num_outputs).state_dict()
        return fitting(weights, built, f"{self.operator.name} of {self.models[0].name}")

    def _stored(self, name: str, tensor: Tensor) -> Tensor:
        """In the dtype that it is stored in. Raises IncompatibleWeights for NaN and infinite."""
        models = self.models[-1:] if self.facts["aligns"] else list(self.models)
        if self.base:
            models.append(self._base_weights)
        dtypes = [model.dtype(name) for model in models if name in model.shapes]
        return stored(name, tensor, dtypes, self.operator.name)

    def _statistics(
        self, merged: Mapping[str, Tensor], ingredients: Ingredients
    ) -> dict[str, Tensor]:
        """Of batch normalizations: counted on images where there are any, else averaged."""
        if not self.buffers.statistics:
            return {}
        is_single = max(share for _, share in ingredients.shares) == 1
        if not self.facts["split"] or is_single:
            return joined(*zip(*ingredients.shares, strict=True))
        model = self.model()
        load(model, {**merged, **self.heads.tensors()})
        recount(model, self._allowed(self._own_examples()))
        return {name: tensor.cpu() for name, tensor in statistics_of(model).items()}

    def model(self) -> nn.Module:
        """A running model of the ingredients' architecture, with the first one's weights."""
        built = self._folder.spec().origin.changed(self.heads.changes).build(self.about.num_outputs)
        built.load_state_dict({**self.models[0], **self.heads.tensors()})
        running = built.eval().float().to(self.sources.device).requires_grad_(False)
        return self._own_examples().in_class_order(running) if self.facts["split"] else running

    def examples(self, number: int | None = None) -> EvalData:
        """Of the data of the model whose recipe the result has, as it sees them; with a `number`,
        as that ingredient sees them. Raises InvalidInput where a model was trained on images that
        are to select by."""
        if number is None:
            self._check_images()
            return self._allowed(self._own_examples())
        origin, model = self._folder.path.name, self.chosen[number].model
        return self._allowed(self.sources.examples(model, self.facts["split"], data_of=origin))

    def _own_examples(self) -> EvalData:
        return self.sources.examples(self._folder.path.name, self.facts["split"])

    def _check_images(self, purpose: str = "scores one model") -> None:
        """Raises InvalidInput where the ingredients do not see images alike."""
        origin, split = self._folder.path.name, self.facts["split"]
        models = dict.fromkeys((origin, *(ref.model for ref in self.chosen)))
        seen = ((m, self.sources.examples(m, split, data_of=origin).preprocessing) for m in models)
        alike = {model: how for model, how in seen if how is not None}
        check_images_alike(self.operator.name, alike, purpose)

    def subject(self, number: int) -> EvalModel:
        """An ingredient that runs, with images of its own data. Raises as `examples`."""
        self.sources.subject.cache_clear()  # one of them at a time is in memory
        subject = self.sources.subject(self.chosen[number], self.facts["split"], None)
        self._allowed(subject.examples)
        return subject

    def symmetries(self) -> Symmetries:
        """Raises IncompatibleWeights where the architecture declares none."""
        architecture = self.spec.origin.architecture
        model = self.models[0]
        if architecture is None:
            raise IncompatibleWeights(f"{model.name}: nothing here knows its architecture")
        declare = architecture.plugin.facts["symmetries"]
        if declare is None or isinstance(declare, str):
            fault = f"{model.name}: {architecture.name} declares no symmetries to align it by"
            raise IncompatibleWeights(f"{fault}: {declare}" if declare else fault)
        return declare(model.skeleton)

    def _allowed(self, examples: EvalData) -> EvalData:
        split = self.facts["split"]
        if not len(examples):
            raise InvalidInput(f"data set '{examples.dataset.name}' has no {split} images")
        for ref in self.chosen if split != "train" and not self.force else ():
            if self.sources.learned(ref.model, examples):
                what = f"model {ref.model} was trained on images of the {split} split by which"
                how = f"{parameter('data', 'NAME')}, or allow it: {parameter('force', True)}"
                raise InvalidInput(f"{what} {self.operator.name} selects; name other data, {how}")
        return examples

    @cached_property
    def _base_weights(self) -> Weights:
        """The base's weights, with the head that the models had before they were trained.

        Raises IncompatibleWeights where the models' heads did not start alike, or it is not known
        from what.
        """
        assert self.base
        base = with_matrices(self.sources.weights(self.base), self.layers)
        if message := mismatch(self.models[0], base, head=False):
            raise IncompatibleWeights(f"{message}; it cannot be their base")
        if self.heads.separate:
            return self.heads.backbone(base)
        if self.spec.origin.architecture is None:  # which tensors are a head is not known
            return base
        head = common_head(self.sources, self.chosen, base, self.base)
        return Weights(base.name, {**WeightSubset(base, head=False), **head})

    def _check_combinable(self, model: Weights, *, head: bool) -> None:
        """Raises IncompatibleWeights for other shapes than the first's, or another architecture."""
        check_alike(self.models[0], model)
        if message := mismatch(self.models[0], model, head=head):
            raise IncompatibleWeights(f"{message}; they cannot be combined")


def _without_operator(factors: Mapping[str, Any]) -> dict[str, Any]:
    """Of an ingredient that was itself merged: how is its own matter."""
    return {k: v for k, v in factors.items() if k.partition(".")[0] != "operator"}
