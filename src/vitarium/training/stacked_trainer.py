"""Stacked training: models of one architecture trained together, as one computation.

All weights of k models lie in one matrix, a row per model. Forward and backward run once for all
of them, by torch.func's vmap over the rows; each model's optimiser steps on its own row. Where
models differ in the kind of head, each has a place for every kind and uses its own.

    flat [k, weights]  ->  views [k, *shape], by name  ->  vmap(objective)  ->  losses [k]
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from vitarium.architectures.base import ActsAfterSteps
from vitarium.architectures.heads import head_prefix, is_head
from vitarium.blueprint import ModelSpec, Recipe
from vitarium.data.batch import Batch
from vitarium.training._flat_layout import Layout
from vitarium.training._stacked_convolution import multiply_convolutions
from vitarium.training.options import TrainOptions
from vitarium.training.resume import MODEL, OPTIMIZER, weights_of
from vitarium.training.train_state import TrainState

OWN_FACTORS = (
    "head",
    "initialization",
    "optimizer",
    "schedule",
    "clip_grad_norm",
    "seed",
    "checkpoints",
)
"""Factors in which the models of a stack may differ."""


def stack_key(spec: ModelSpec) -> str | None:
    """Models with the same key can be trained in one stack; None: this one only by itself.

    An optimiser has to work on each weight by itself (a plug-in says so by `elementwise=True`),
    a training that draws random numbers inside of the model would draw others in a stack, and a
    stack calls no part of a model after its steps.
    """
    recipe = spec.recipe
    if not recipe.optimizer.plugin.facts.get("elementwise") or _stays_alone(recipe):
        return None
    shared = {k: v for k, v in recipe.factors().items() if k not in OWN_FACTORS}
    if "teacher_outputs" in recipe.objective.plugin.facts:
        shared["parent"] = spec.parent  # so that teachers, and what they tell, are alike
    return json.dumps(shared, sort_keys=True)


def _stays_alone(recipe: Recipe) -> bool:
    """Whether the model drops something at random in training, or acts after its steps."""
    if recipe.architecture not in _alone:
        with torch.device("meta"):
            model = recipe.architecture(1)
        _alone[recipe.architecture] = any(
            isinstance(module, ActsAfterSteps) or _drops(module) for module in model.modules()
        )
    return _alone[recipe.architecture]


def _drops(module: nn.Module) -> bool:
    rates = (getattr(module, name, None) for name in ("p", "prob", "drop_prob"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


_alone: dict[Any, bool] = {}


class StackedTrainer:
    """Models on the same data that are trained as one computation; used as a Trainer.

    Their modules' weights become views of the stack's, so whatever reads them sees the last step.
    """

    def __init__(self, members: Sequence[TrainState], options: TrainOptions) -> None:
        self.members, self.options = list(members), options
        # A stack of one gets an empty row: its products would be computed otherwise, and its bits
        # be others than those that it has in company.
        self._rows = max(len(members), 2)
        self.template, self._names = _template(members)
        self.layout = Layout(dict(self.template.named_parameters()))
        self.flat = self._gathered()
        self.weights = {name: self._leaf(name) for name in self.layout.shapes}
        self._gradients = torch.zeros_like(self.flat[:, : self.layout.trained_size])
        self.buffers = self._buffers()
        self.rows = [self._row(k) for k in range(len(members))]
        self.optimizers = self._optimizers()
        clip = torch.tensor([member.recipe.clip_grad_norm or torch.inf for member in members])
        self._clip = self._padded(clip).to(self.flat.device) if clip.isfinite().any() else None
        self._objective = _Objective(self.template, members[0].recipe)
        self._losses = torch.compile(self._vmapped) if options.compiled else self._vmapped

    def step(self, batch: Batch, epoch: int, number: int) -> dict[str, Tensor]:
        """Train on the batches of all models [k, ...]; returns the logged numbers [k]."""
        for member, (_, group) in zip(self.members, self.rows, strict=True):
            group["lr"] = member.rate(epoch, number)
        with self.options.autocast:
            given = (batch.images, batch.labels, batch.targets)
            told = {name: self._padded(tensor) for name, tensor in self._told(batch).items()}
            losses, metrics = self._losses(*map(self._padded, given), told)
        # A model's loss depends on its own weights alone, so the sum's gradient is each one's own.
        trained = [self.weights[name] for name in self.layout.trained]
        gradients = torch.autograd.grad(losses.sum(), trained, materialize_grads=True)
        places = [self.layout.view(self._gradients, name) for name in self.layout.trained]
        torch._foreach_copy_(places, list(gradients))
        if self._clip is not None:
            norms = self._gradients.norm(dim=1)
            self._gradients *= (self._clip / (norms + 1e-6)).clamp(max=1).unsqueeze(1)
        for optimizer in self.optimizers:
            optimizer.step()
        return {name: values[: len(self.members)] for name, values in metrics.items()}

    def _told(self, batch: Batch) -> dict[str, Tensor]:
        """What each member's teacher says of its own images, [k, ...] by name."""
        told = [
            member.teacher(images)
            for member, images in zip(self.members, batch.images, strict=True)
            if member.teacher
        ]
        return {name: torch.stack([one[name] for one in told]) for name in (told or [{}])[0]}

    def _padded(self, values: Tensor) -> Tensor:
        """With something for an empty row."""
        missing = self._rows - len(values)
        return torch.cat((values, values[:missing])) if missing else values

    def scores(self, epoch: int) -> list[dict[str, float]]:
        """Each model's metrics; the outputs for a batch are computed for all models at once."""
        answers = _Answers(self)
        found = []
        with self.options.autocast:
            for k, member in enumerate(self.members):
                member.model.eval()
                with answers.given(k):
                    found.append(member.scores(epoch, answers.score(member)))
        return found

    def progress(self) -> list[dict[str, Tensor]]:
        """What going on needs, of each model; the same as if it had been trained by itself."""
        return [self._progress(k) for k in range(len(self.members))]

    def restore(self, progress: Sequence[Mapping[str, Tensor]]) -> None:
        for k, (member, tensors) in enumerate(zip(self.members, progress, strict=True)):
            member.model.load_state_dict(weights_of(tensors), strict=True)
            self._restore_state(k, tensors)

    def training_mode(self) -> None:
        for member in self.members:
            member.training_mode()
        self.template.train(self.members[0].model.training)

    def faults(self, epoch: int) -> dict[int, str]:
        """Which members' weights are not finite, and where."""
        finite = torch.isfinite(self.flat[: len(self.members)]).all(dim=1).tolist()
        found = {k: self.members[k].fault(epoch) for k, fine in enumerate(finite) if not fine}
        return {k: fault for k, fault in found.items() if fault}

    # Weights

    def _gathered(self) -> Tensor:
        """All models' weights, [rows, size]; zeros where a model has another kind of head."""
        example = next(self.template.parameters())
        shape = (self._rows, self.layout.size)
        flat = torch.zeros(shape, device=example.device, dtype=example.dtype)
        for k, member in enumerate(self.members):
            for name, weight in member.model.named_parameters():
                view = self.layout.view(flat[k], self._place(k, name))
                view.copy_(weight.detach())
                weight.data = view
        return flat

    def _place(self, k: int, name: str) -> str:
        """What a weight of the k-th model is called in the template."""
        return self._names[k].get(name, name)

    def _leaf(self, name: str) -> Tensor:
        """A weight of all models, [rows, *shape]: a leaf of the computation, in flat's memory."""
        view = self.layout.view(self.flat, name).detach()
        return view.requires_grad_(name in self.layout.trained)

    def _buffers(self) -> dict[str, Tensor]:
        own = [dict(member.model.named_buffers()) for member in self.members]
        stacked = {
            name: self._padded(torch.stack([buffers[name] for buffers in own])) for name in own[0]
        }
        if kinds := getattr(_head(self.template), "kinds", None):
            used = [kinds.index(str(_head(member.model))) for member in self.members]
            which = torch.tensor(used, device=self.flat.device)
            stacked[f"{head_prefix(self.template)}.which"] = self._padded(which)
        return stacked

    # Optimisers

    def _row(self, k: int) -> tuple[nn.Parameter, dict[str, Any]]:
        size = self.layout.trained_size
        row = nn.Parameter(self.flat[k, :size])
        row.grad = self._gradients[k]
        return row, {}

    def _optimizers(self) -> list[Optimizer]:
        """One of each kind, with a group of settings for each model that uses it."""
        by_kind: dict[type, Optimizer] = {}
        for k, member in enumerate(self.members):
            row, _ = self.rows[k]
            own: Optimizer = member.recipe.optimizer([row])
            shared = by_kind.setdefault(type(own), own)
            if shared is not own:
                shared.add_param_group(own.param_groups[0])
            self.rows[k] = (row, shared.param_groups[-1])
        return list(by_kind.values())

    def _progress(self, k: int) -> dict[str, Tensor]:
        model, row = self.members[k].model, self.rows[k][0]
        tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
        state = self._optimizer_of(row).state[row]
        for number, name in enumerate(_trained(model)):
            for key, value in state.items():
                if isinstance(value, Tensor):
                    of_weights = value.shape == row.shape  # or a count of steps
                    own = self.layout.view(value, self._place(k, name)) if of_weights else value
                    tensors[f"{OPTIMIZER}{number}/{key}"] = own
        return tensors

    def _restore_state(self, k: int, tensors: Mapping[str, Tensor]) -> None:
        row, names = self.rows[k][0], _trained(self.members[k].model)
        state: dict[str, Tensor] = {}
        for path, value in tensors.items():
            if path.startswith(OPTIMIZER):
                number, key = path.removeprefix(OPTIMIZER).split("/")
                place = self._place(k, names[int(number)])
                if tuple(value.shape) != self.layout.shapes[place]:
                    state[key] = value.clone()  # a count of steps
                    continue
                if key not in state:
                    state[key] = torch.zeros_like(row, dtype=value.dtype)
                self.layout.view(state[key], place).copy_(value)
        if state:
            self._optimizer_of(row).state[row] = state

    def _optimizer_of(self, row: nn.Parameter) -> Optimizer:
        return next(
            optimizer
            for optimizer in self.optimizers
            if any(row is group["params"][0] for group in optimizer.param_groups)
        )

    # The computation

    def _vmapped(self, *batch: Any) -> Any:
        with self._attention():
            return vmap(self._one, randomness="error")(self.weights, self.buffers, *batch)

    def _attention(self) -> AbstractContextManager[object]:
        """vmap would call the CPU's fused attention model by model, the plain one at once."""
        on_cpu = self.flat.device.type == "cpu"
        return sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()

    def _one(self, weights: Any, buffers: Any, *batch: Any) -> Any:
        tensors = {f"model.{name}": tensor for name, tensor in (weights | buffers).items()}
        return functional_call(self._objective, tensors, batch)

    def outputs(self, images: Tensor) -> Tensor:
        """All models' outputs for the same images, [k, batch, outputs]."""

        def one(weights: Any, buffers: Any) -> Any:
            return functional_call(self.template, weights | buffers, (images,))

        self.template.eval()
        with self._attention():
            found: Tensor = vmap(one)(self.weights, self.buffers)
        return found


class _Objective(nn.Module):
    """The objective as a module, so that the model's weights inside of it can be replaced."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.objective = model, recipe.objective

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor, taught: Any) -> Any:
        loss = self.objective(self.model, Batch(images, labels, targets, taught or None))
        return loss.value, loss.metrics


class _AnyHead(nn.Module):
    """Heads of several kinds; the buffer `which` says whose outputs count."""

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.which: Tensor
        self.kinds = list(heads)
        self.heads = nn.ModuleList(heads.values())
        self.register_buffer("which", torch.zeros((), dtype=torch.long))

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.heads[0](features)
        for number, head in enumerate(self.heads[1:], 1):
            found = torch.where(self.which == number, head(features), found)
        return found


class _Answers:
    """Outputs of all models for the batches of a split, computed when the first one asks."""

    def __init__(self, stack: StackedTrainer) -> None:
        self.stack = stack
        self._found: dict[Any, Tensor] = {}
        self._current: tuple[Any, Tensor | None] = (None, None)

    def score(self, member: TrainState) -> Any:
        """The member's `score`, remembering which batch is out."""

        def score(split: Any, limit: int | None = None) -> Iterator[Batch]:
            for number, batch in enumerate(member.batches.score(split, limit)):
                self._current = ((split, number), batch.images)
                yield batch

        return score

    @contextmanager
    def given(self, k: int) -> Iterator[None]:
        """Inside, the k-th model takes its outputs for such a batch from here."""
        model = self.stack.members[k].model
        forward = model.forward

        def answer(images: Tensor, *more: Any, **named: Any) -> Any:
            key, current = self._current
            if images is not current or more or named:
                return forward(images, *more, **named)
            if key not in self._found:
                self._found[key] = self.stack.outputs(images)
            return self._found[key][k]

        model.forward = answer
        try:
            yield
        finally:
            model.forward = forward


def _template(members: Sequence[TrainState]) -> tuple[nn.Module, list[dict[str, str]]]:
    """A module with a place for every head, and what each model's weights are called in it."""
    model = deepcopy(members[0].model)
    multiply_convolutions(model)
    kinds = {str(_head(member.model)): _head(member.model) for member in members}
    if len(kinds) == 1:
        return model, [{} for _ in members]
    prefix = head_prefix(model)
    model.set_submodule(prefix, _AnyHead({kind: deepcopy(head) for kind, head in kinds.items()}))
    order = list(kinds)
    names = []
    for member in members:
        number = order.index(str(_head(member.model)))
        own = [name for name, _ in member.model.named_parameters() if is_head(member.model, name)]
        inside = f"{prefix}.heads.{number}"
        names.append({name: inside + name.removeprefix(prefix) for name in own})
    return model.to(next(members[0].model.parameters()).device), names


def _trained(model: nn.Module) -> list[str]:
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def _head(model: nn.Module) -> nn.Module:
    return model.get_submodule(head_prefix(model))
