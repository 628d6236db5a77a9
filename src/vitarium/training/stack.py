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

from vitarium.architectures.heads import head_prefix, is_head
from vitarium.blueprint import ModelSpec, Recipe
from vitarium.data.batch import Batch
from vitarium.training.member import Member
from vitarium.training.options import TrainOptions
from vitarium.training.progress import MODEL, OPTIMIZER, weights_of

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
    and a training that draws random numbers inside of the model would draw others in a stack.
    """
    recipe = spec.recipe
    if not recipe.optimizer.plugin.facts.get("elementwise") or _draws(recipe):
        return None
    shared = {k: v for k, v in recipe.factors().items() if k not in OWN_FACTORS}
    return json.dumps(shared, sort_keys=True)


def _draws(recipe: Recipe) -> bool:
    """Whether the model drops something at random in training."""
    if recipe.architecture not in _drawing:
        with torch.device("meta"):
            model = recipe.architecture(1)
        _drawing[recipe.architecture] = any(
            isinstance(rate := getattr(module, name, None), float) and rate > 0
            for module in model.modules()
            for name in ("p", "prob", "drop_prob")
        )
    return _drawing[recipe.architecture]


_drawing: dict[Any, bool] = {}


class Stack:
    """Models on the same data that are trained as one computation; see Alone for its use.

    Their modules' weights become views of the stack's, so whatever reads them sees the last step.
    """

    def __init__(self, members: Sequence[Member], options: TrainOptions) -> None:
        self.members, self.options = list(members), options
        self.template, self._names = _template(members)
        parameters = dict(self.template.named_parameters())
        # the trained ones first, so that an optimiser's part of a row is one piece
        order = sorted(parameters, key=lambda name: not parameters[name].requires_grad)
        self._sizes = {name: parameters[name].numel() for name in order}
        self._trained = [name for name in order if parameters[name].requires_grad]
        self.flat = self._gathered(parameters)
        self.weights = self._views(parameters)
        self.buffers = self._buffers()
        self.rows = [self._row(k) for k in range(len(members))]
        self.optimizers = self._optimizers()
        clip = [member.recipe.clip_grad_norm or torch.inf for member in members]
        self._clip = None if min(clip) == torch.inf else torch.tensor(clip, device=self.flat.device)
        self._objective = _Objective(self.template, members[0].recipe)
        self._losses = torch.compile(self._vmapped) if options.compiled else self._vmapped

    def step(self, batch: Batch, epoch: int, number: int) -> dict[str, Tensor]:
        """Train on the batches of all models [k, ...]; returns the logged numbers [k]."""
        for member, (_, group) in zip(self.members, self.rows, strict=True):
            group["lr"] = member.rate(epoch, number)
        with self.options.autocast:
            losses, metrics = self._losses(batch.images, batch.labels, batch.targets)
        # A model's loss depends on its own weights alone, so the sum's gradient is each one's own.
        trained = [self.weights[name] for name in self._trained]
        gradients = torch.autograd.grad(losses.sum(), trained, materialize_grads=True)
        flat = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
        if self._clip is not None:
            flat *= (self._clip / (flat.norm(dim=1) + 1e-6)).clamp(max=1).unsqueeze(1)
        for (row, _), gradient in zip(self.rows, flat, strict=True):
            row.grad = gradient
        for optimizer in self.optimizers:
            optimizer.step()
        return dict(metrics)

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
        finite = torch.isfinite(self.flat).all(dim=1).tolist()
        found = {k: self.members[k].fault(epoch) for k, fine in enumerate(finite) if not fine}
        return {k: fault for k, fault in found.items() if fault}

    # Weights

    def _gathered(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """All models' weights, [k, weights]; zeros where a model has another kind of head."""
        example = next(iter(parameters.values()))
        total = sum(self._sizes.values())
        flat = torch.zeros(len(self.members), total, device=example.device, dtype=example.dtype)
        for k, member in enumerate(self.members):
            places = self._places()
            for name, weight in member.model.named_parameters():
                start, size = places[self._names[k].get(name, name)]
                view = flat[k, start : start + size].view(weight.shape)
                view.copy_(weight.detach())
                weight.data = view
        return flat

    def _places(self) -> dict[str, tuple[int, int]]:
        """Start and size of each weight in a row."""
        places, start = {}, 0
        for name, size in self._sizes.items():
            places[name] = (start, size)
            start += size
        return places

    def _views(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Each weight of all models, [k, *shape]; leaves of the computation, in flat's memory."""
        return {
            name: self.flat[:, start : start + size]
            .view(len(self.members), *parameters[name].shape)
            .detach()
            .requires_grad_(parameters[name].requires_grad)
            for name, (start, size) in self._places().items()
        }

    def _buffers(self) -> dict[str, Tensor]:
        own = [dict(member.model.named_buffers()) for member in self.members]
        stacked = {name: torch.stack([buffers[name] for buffers in own]) for name in own[0]}
        if kinds := getattr(_head(self.template), "kinds", None):
            used = [kinds.index(str(_head(member.model))) for member in self.members]
            which = torch.tensor(used, device=self.flat.device)
            stacked[f"{head_prefix(self.template)}.which"] = which
        return stacked

    # Optimisers

    def _row(self, k: int) -> tuple[nn.Parameter, dict[str, Any]]:
        size = sum(self._sizes[name] for name in self._trained)
        return nn.Parameter(self.flat[k, :size]), {}

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
        member, places = self.members[k], self._places()
        tensors = {MODEL + name: tensor for name, tensor in member.model.state_dict().items()}
        row = self.rows[k][0]
        state = self._optimizer_of(row).state[row]
        trained = [name for name, p in member.model.named_parameters() if p.requires_grad]
        for number, name in enumerate(trained):
            start, size = places[self._names[k].get(name, name)]
            shape = self.weights[self._names[k].get(name, name)].shape[1:]
            for key, value in state.items():
                if isinstance(value, Tensor):
                    whole = value.numel() != row.numel()  # a count of steps, not of weights
                    own = value if whole else value[start : start + size].view(shape)
                    tensors[f"{OPTIMIZER}{number}/{key}"] = own
        return tensors

    def _restore_state(self, k: int, tensors: Mapping[str, Tensor]) -> None:
        member, places, row = self.members[k], self._places(), self.rows[k][0]
        trained = [name for name, p in member.model.named_parameters() if p.requires_grad]
        state: dict[str, Tensor] = {}
        for path, value in tensors.items():
            if not path.startswith(OPTIMIZER):
                continue
            number, key = path.removeprefix(OPTIMIZER).split("/")
            start, size = places[self._names[k].get(trained[int(number)], trained[int(number)])]
            if value.shape != member.model.get_parameter(trained[int(number)]).shape:
                state[key] = value.clone()
                continue
            if key not in state:
                state[key] = torch.zeros_like(row, dtype=value.dtype)
            state[key][start : start + size] = value.flatten()
        if state:
            self._optimizer_of(row).state[row] = state

    def _optimizer_of(self, row: nn.Parameter) -> Optimizer:
        return next(
            optimizer
            for optimizer in self.optimizers
            if any(row is group["params"][0] for group in optimizer.param_groups)
        )

    # The computation

    def _vmapped(self, images: Tensor, labels: Tensor, targets: Tensor) -> Any:
        with self._attention():
            return vmap(self._one, randomness="error")(
                self.weights, self.buffers, images, labels, targets
            )

    def _attention(self) -> AbstractContextManager[object]:
        """vmap would call the CPU's fused attention model by model, the plain one at once."""
        on_cpu = self.flat.device.type == "cpu"
        return sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()

    def _one(self, weights: Any, buffers: Any, images: Tensor, labels: Tensor, targets: Any) -> Any:
        tensors = {f"model.{name}": tensor for name, tensor in (weights | buffers).items()}
        return functional_call(self._objective, tensors, (images, labels, targets))

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

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor) -> Any:
        loss = self.objective(self.model, Batch(images, labels, targets))
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

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._found: dict[Any, Tensor] = {}
        self._current: tuple[Any, Tensor | None] = (None, None)

    def score(self, member: Member) -> Any:
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
            del model.forward


def _template(members: Sequence[Member]) -> tuple[nn.Module, list[dict[str, str]]]:
    """A module with a place for every head, and what each model's weights are called in it."""
    model = deepcopy(members[0].model)
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


def _head(model: nn.Module) -> nn.Module:
    return model.get_submodule(head_prefix(model))
