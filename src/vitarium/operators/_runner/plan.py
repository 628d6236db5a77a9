"""One combination of models: what it will be, its weights, and its place in the zoo."""

from collections.abc import Sequence
from contextlib import ExitStack

from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.file_faults import check_writable
from vitarium.core.registry import Section
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.bases import base_of, common_parent
from vitarium.operators._runner.buffer import IN_MEMORY, DiskBuffer
from vitarium.operators._runner.heads import Heads
from vitarium.operators.base import Ingredients, OperatorLog, Report


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
        base: str | None = None,
        heads: str = "merge",
        stage: str = "merge",
        force: bool = False,
        weights: Sequence[Weights] | None = None,
    ) -> None:
        self.sources, self.operator, self.chosen = sources, operator, ingredients
        self.zoo, self.force = sources.zoo, force
        self.facts = operator.plugin.facts
        self.log = OperatorLog()
        models = list(weights or map(sources.weights, ingredients))
        self.heads = Heads(sources, ingredients, models, heads)
        self.models = [self.heads.backbone(model) for model in models]
        origin = self.heads.origin or ingredients[self.facts["origin"]]
        self._folder = self.zoo.folder(origin.model)
        """Of the model whose recipe the result has."""
        self.about = self._folder.about()
        self.base = self._base(base)
        self.spec = self._folder.spec().combined(
            operator,
            ingredients,
            stage=stage,
            base=self.base,
            heads=self.heads.label,
            changes=self.heads.changes | self._changes(),
        )

    def save(self, report: Report = lambda done, of: None) -> str:
        """Compute it and keep it in the zoo, unless it is there; its id.

        Raises NotWritable at once, and DiskFull.
        """
        folder = self.zoo.folder(self.spec.id)
        if not folder.result():
            check_writable(folder.path)
            with ExitStack() as stack:
                large = self.models[0].nbytes > IN_MEMORY
                buffer = stack.enter_context(DiskBuffer(self.zoo.path / "cache")) if large else None
                weights = self.weights(report, buffer)
                folder.begin(self.spec, self.about)
                folder.commit(0, self.log.metrics, weights, None, plain=large)
            folder.finish("finished", "; ".join(self.log.lines))
        return self.spec.id

    def weights(
        self, report: Report = lambda done, of: None, buffer: DiskBuffer | None = None
    ) -> dict[str, Tensor]:
        """The merged weights, tensors [*shape] by name; what the operator reports is in `log`.

        Args:
            buffer: where they are written, one after the other; None: they are in memory.
        """
        first = self.models[0]
        ingredients = Ingredients(
            self.models,
            base=self._base_weights if self.base else None,
            model=self.model,
            examples=self.examples if self.facts["split"] else None,
            subject=self.subject if self.facts["split"] else None,
            symmetries=self.symmetries,
            report=report,
        )
        merged = {}
        for name, tensor in self.operator(ingredients):
            stored = tensor.to(first.dtype(name) if name in first.shapes else tensor.dtype)
            merged[name] = buffer.write(stored) if buffer else stored
        self.log = ingredients.log
        integers = {name: first[name] for name in first if name not in first.shapes}
        return {**merged, **integers, **self.heads.tensors()}

    def model(self) -> nn.Module:
        """A running model of the ingredients' architecture, with the first one's weights."""
        built = self._folder.spec().origin.changed(self.heads.changes).build(self.about.num_outputs)
        first = {name: self.models[0][name] for name in self.models[0]}
        built.load_state_dict({**first, **self.heads.tensors()})
        return built.eval().float().to(self.sources.device).requires_grad_(False)

    def examples(self) -> EvalData:
        """Raises InvalidInput where a model was trained on images that are to select by."""
        return self._allowed(self.sources.examples(self._folder.path.name, self.facts["split"]))

    def subject(self, number: int) -> EvalModel:
        """An ingredient that runs, with images of its own data. Raises as `examples`."""
        self.sources.subject.cache_clear()  # one of them at a time is in memory
        subject = self.sources.subject(self.chosen[number], self.facts["split"], None)
        self._allowed(subject.examples)
        return subject

    def _allowed(self, examples: EvalData) -> EvalData:
        split = self.facts["split"]
        if not len(examples):
            raise InvalidInput(f"data set '{examples.dataset.name}' has no {split} images")
        for ingredient in self.chosen:
            if (
                split != "train"
                and not self.force
                and self.sources.learned(ingredient.model, examples)
            ):
                raise InvalidInput(
                    f"model {ingredient.model} was trained on images of the {split} split by which "
                    f"{self.operator.name} selects; name other data with --data, or --force it"
                )
        return examples

    def symmetries(self) -> Symmetries:
        """Raises IncompatibleWeights where the architecture declares none."""
        origin = self.spec.origin
        declare = origin.architecture and origin.architecture.plugin.facts.get("symmetries")
        if not declare:
            architecture = origin.architecture.name if origin.architecture else "an unknown one"
            raise IncompatibleWeights(
                f"{self.models[0].name}: its architecture ({architecture}) declares no symmetries"
            )
        symmetries: Symmetries = declare(self.models[0].skeleton)
        return symmetries

    # Parts of it

    def _changes(self) -> dict[str, Section]:
        """What the operator changes of the recipe."""
        change = self.facts["architecture"]
        if not change:
            return {}
        architecture = self._folder.spec().origin.architecture
        try:
            return {"architecture": change(self.operator.config, architecture)}
        except IncompatibleWeights as error:
            raise IncompatibleWeights(f"{self.models[0].name}: {error}") from None

    def _base(self, named: str | None) -> CheckpointRef | None:
        if not self.facts["needs_base"]:
            if named is not None:
                raise InvalidInput(f"{self.operator.name} has no use for a base")
            return None
        if named is not None:
            id, epoch = self.zoo.at(named)
            return CheckpointRef(model=id, epoch=epoch)
        return common_parent(self.zoo, self.operator.name, self.chosen)

    def _base_weights(self) -> Weights:
        assert self.base
        return base_of(self.sources, self.base, self.chosen, self.models, self.heads)
