"""A model of a zoo, as `zoo[ID]` gives it: what it is, where it comes from, and its weights."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.printable import printable

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from vitarium.blueprint import Imported, Recipe, Spec
    from vitarium.data.loader import SplitName
    from vitarium.data.model_images import ModelImages
    from vitarium.data.preprocessing import Assumed
    from vitarium.zoo.zoo import Zoo

SCORES = ("test_accuracy", "test_knn_accuracy", "test_map", "test_knn_map")
"""Accuracy on test images; by k-NN for models that were trained without labels; mean average
precision in its place where images have several labels."""


class Model:
    """One model of a zoo; nothing is read before it is asked for.

        model = zoo["3f2a"]
        model.load()               # an nn.Module, after the last epoch
        model.state_dict(epoch=0)  # weights before training, of a model that was grown
        model.metrics              # a table: one row per epoch
        model.parent, model.children

    Every property raises CorruptFile where the model's own files are damaged.
    """

    def __init__(self, zoo: "Zoo", id: str) -> None:
        self.zoo, self.id = zoo, id
        self._folder = zoo.folder(id)

    def load(self, epoch: int | None = None, *, plain: bool = True) -> "nn.Module":
        """The model after an epoch, in eval mode on the CPU; None: the last kept; see `Zoo`."""
        return self.zoo.load(self.id, -1 if epoch is None else epoch, plain=plain)

    def state_dict(self, epoch: int | None = None, *, plain: bool = True) -> "dict[str, Tensor]":
        """The weights after an epoch by name, on the CPU; see `Zoo.state_dict`."""
        return self.zoo.state_dict(self.id, -1 if epoch is None else epoch, plain=plain)

    def companions(self) -> "nn.Module":
        """What the objective brought beside it, where that is kept; see `Zoo.companions`."""
        return self.zoo.companions(self.id)

    def data(
        self,
        split: "SplitName" = "test",
        *,
        data: str | Mapping[str, Any] | None = None,
        normalization: "Assumed | None" = None,
        data_dir: Path | None = None,
    ) -> "ModelImages":
        """The images that it is scored on, as it sees them: a `torch.utils.data.Dataset`.

            loader = DataLoader(zoo.data("3f2a", split="val"), batch_size=256)

        An item is an image, float32 [channels, height, width], normalized and of the size that the
        model takes, and the number of its class: the model's output for it, where its outputs have
        the data set's classes. `classes` has their names, `labels` all numbers, int64 [n].

        Args:
            split: "train", "val" or "test".
            data: another data set, by name or as a mapping with its settings; None: its own.
            normalization: mean and std of the pixels in [0, 1] where those of the model are not
                known, e.g. `(0.5, 0.5)`; or "data": the data set's.
            data_dir: dataset folder, searched first.

        Raises UnknownName, InvalidConfig, DataNotFound, InvalidData, NotApplicable where data set
        or normalization are not known, and InvalidInput where the preprocessing cannot be applied.
        """
        from vitarium.core.registry import section
        from vitarium.data.model_images import model_images

        chosen = None if data is None else section("dataset", data)
        about = self._folder.about()
        outputs = (about.num_outputs, about.classes)
        return model_images(self.spec, *outputs, split, chosen, normalization, data_dir)

    @property
    def spec(self) -> "Spec":
        """Recipe, stage, parent; what the id is a hash of."""
        return self._folder.spec()

    @property
    def recipe(self) -> "Recipe | Imported":
        """How it was trained; of an imported model, what is known of that."""
        return self.spec.origin

    @property
    def factors(self) -> dict[str, Any]:
        """Every generating factor by its dotted name, e.g. `optimizer.lr`.

        Of a model that an operator made: the operator and its settings (`operator.density`), and
        the factors that all of its ingredients have in common.
        """
        from vitarium.blueprint.spec import described

        return described(self._folder.factors())

    @property
    def stage(self) -> str:
        """Name of the stage that it was grown in; of others what they were imported or made as.

        As it is shown: see `Zoo.rename_stage`.
        """
        from vitarium.zoo.annotations import stage_labels

        recorded = self._folder.factors()["stage"]
        return stage_labels(self.zoo.path).get(recorded, recorded)

    @property
    def tags(self) -> tuple[str, ...]:
        """See `Zoo.tag`."""
        from vitarium.zoo.annotations import read

        return read(self._folder.path).tags

    @property
    def note(self) -> str:
        """See `Zoo.note`; "" where there is none."""
        from vitarium.zoo.annotations import read

        return read(self._folder.path).note

    @property
    def status(self) -> str:
        """`training`, `finished` or `diverged`."""
        return self._folder.status

    @property
    def metrics(self) -> "pd.DataFrame":
        """One row per finished epoch: epoch, kept (its weights are), and metrics."""
        import pandas as pd

        finished = self._folder.epochs()
        return pd.DataFrame(
            [{"epoch": e.number, "kept": e.checkpoint is not None, **e.metrics} for e in finished]
        )

    @property
    def checkpoints(self) -> list[CheckpointRef]:
        """Those that are kept, in order."""
        epochs = self._folder.epochs()
        return [CheckpointRef(self.id, epoch.number) for epoch in epochs if epoch.checkpoint]

    @property
    def parent_checkpoint(self) -> CheckpointRef | None:
        """What its training started from, or what its operator added to; None: from scratch."""
        spec = self._folder.factors()
        parent = spec["parent"]
        return None if parent is None else CheckpointRef(parent, spec["parent_epoch"] or 0)

    @property
    def parent(self) -> "Model | None":
        """Raises UnknownName for one that is not in the zoo."""
        ref = self.parent_checkpoint
        return None if ref is None else self.zoo[ref.model]

    @property
    def children(self) -> "list[Model]":
        """The models of which this is the parent, in order of id."""
        return [Model(self.zoo, id) for id in self.zoo.children(self.id)]

    @property
    def initial_epoch(self) -> int | None:
        """The epoch whose weights are those before training; None: there is none, or none that is
        known of: the epochs of an imported model are trained ones, however they are numbered."""
        from vitarium.blueprint.spec import initial_epoch

        return initial_epoch(self._folder.factors())

    @property
    def ingredients(self) -> tuple[CheckpointRef, ...]:
        """What an operator made it from; empty for a model that was trained."""
        return tuple(CheckpointRef(**ref) for ref in self._folder.factors()["ingredients"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and (self.zoo.path, self.id) == (other.zoo.path, other.id)

    def __hash__(self) -> int:
        return hash((self.zoo.path, self.id))

    def __repr__(self) -> str:
        facts = "".join(f", {name} {value}" for name, value in self._facts().items())
        return printable(f"Model({self.id}{facts})")

    def _repr_html_(self) -> str:
        """For notebooks: what it is, its factors, its epochs."""
        operator = self._folder.factors()["operator"]
        facts = {
            **self._facts(),
            "ingredients": ", ".join(map(str, self.ingredients)) or None,
            "operator": operator["name"] if operator else None,
        }
        factors = {name: value for name, value in self.factors.items() if value is not None}
        metrics = self.metrics.to_html(index=False, na_rep="", float_format="{:.4g}".format)
        return (
            f"<b>Model {self.id}</b>{_html_table(facts)}"
            f"<details><summary>{len(factors)} factors</summary>{_html_table(factors)}</details>"
            f"<details><summary>epochs</summary>{metrics}</details>"
        )

    def _facts(self) -> dict[str, Any]:
        spec, epochs = self._folder.factors(), self._folder.epochs()
        origin = spec.get("recipe") or spec["imported"]
        facts: dict[str, Any] = {"stage": self.stage}
        if origin["architecture"]:
            facts["architecture"] = origin["architecture"]["name"]
        facts["status"] = self.status
        if parent := self.parent_checkpoint:
            facts["parent"] = str(parent)
        if epochs:
            facts["epochs"], metrics = epochs[-1].number, epochs[-1].metrics
            facts |= {n: f"{metrics[n]:.4g}" for n in SCORES if metrics.get(n) is not None}
        return facts


ModelName = str | CheckpointRef | Model
"""A model by its id or a beginning of it, a checkpoint as `ID@EPOCH`, or what the zoo gave."""
ModelNames = ModelName | Iterable[ModelName]


def names_of(models: ModelNames) -> list[str]:
    """Of each, `ID` or `ID@EPOCH`; one model stands for a list of itself."""
    listed = [models] if isinstance(models, ModelName) else models
    return [m.id if isinstance(m, Model) else str(m) for m in listed]


def _html_table(facts: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{escape(printable(name))}</th><td>{escape(printable(str(value)))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<table>{''.join(rows)}</table>"
