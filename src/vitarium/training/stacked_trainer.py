"""Stacked training: models of one architecture trained together, as one computation.

All weights of k models lie in one matrix, a row per model. Forward and backward run once for all
of them, by torch.func's vmap over the rows; each model's optimizer steps on its own row. Where
models differ in the kind of head, each has a place for every kind and uses its own.

    flat [k, weights]  ->  views [k, *shape], by name  ->  vmap(objective)  ->  losses [k]
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from vitarium.architectures.heads import head_prefix
from vitarium.data.batch import Batch
from vitarium.training._compile import compiled
from vitarium.training._objective_module import ObjectiveModule, name_in_objective
from vitarium.training._stacked_modules import (
    FlatLayout,
    SharedOutputs,
    head_of,
    stacked_companions,
    stacked_template,
    with_companions,
)
from vitarium.training.options import TrainOptions
from vitarium.training.resume import (
    COMPANIONS,
    GROUP,
    MODEL,
    OPTIMIZER,
    as_tensors,
    from_tensor,
    group_state,
    weights_of,
)
from vitarium.training.train_state import TrainState


class StackedTrainer:
    """Models on the same data that are trained as one computation; used as a Trainer.

    Their modules' weights become views of the stack's, so whatever reads them sees the last step.
    """

    def __init__(self, members: Sequence[TrainState], options: TrainOptions) -> None:
        self.members, self.options = list(members), options
        # A stack of one gets an empty row: its products would be computed otherwise, and its bits
        # be others than those that it has in company.
        self._rows = max(len(members), 2)
        self.template, self._names = stacked_template(members)
        self.companions = stacked_companions(members)
        self.layout = FlatLayout(with_companions(self.template, self.companions))
        self.flat = self._gathered()
        trained = set(self.layout.trained)
        # [rows, *shape] by name: leaves of the computation, in flat's memory
        self.weights = {
            name: self.layout.view(self.flat, name).detach().requires_grad_(name in trained)
            for name in self.layout.shapes
        }
        self._gradients = torch.zeros_like(self.flat[:, : self.layout.trained_size])
        self.buffers = self._buffers()
        self.rows: list[nn.Parameter] = []
        self.groups: list[dict[str, Any]] = []
        self.optimizer_of: list[Optimizer] = []
        self._add_optimizers()
        self._largest_norm = self._limits("clip_grad_norm")
        self._largest_value = self._limits("clip_grad_value")
        objective = members[0].recipe.objective
        self._objective = ObjectiveModule(self.template, objective, self.companions)
        self._losses = compiled(self._vmapped) if options.compiled else self._vmapped

    def step(self, batch: Batch, epoch: int, number: int) -> dict[str, Tensor]:
        """Train on the batches of all models [k, ...]; returns the logged numbers [k]."""
        for member, group in zip(self.members, self.groups, strict=True):
            group["lr"] = member.rate(epoch, number)
            if member.companions is not None:
                member.companions.before_step(member.progress(epoch, number))
        with self.options.autocast:
            inputs = self._inputs(batch, epoch, number)
            losses, metrics, statistics = self._losses(inputs)
        # A model's loss depends on its own weights alone, so the sum's gradient is each one's own.
        trained = [self.weights[name] for name in self.layout.trained]
        gradients = torch.autograd.grad(losses.sum(), trained, materialize_grads=True)
        views = [self.layout.view(self._gradients, name) for name in self.layout.trained]
        torch._foreach_copy_(views, list(gradients))
        self._clip()
        for optimizer in dict.fromkeys(self.optimizer_of):
            optimizer.step()
        self._after_step(statistics, epoch, number)
        return {name: values[: len(self.members)] for name, values in metrics.items()}

    def _inputs(self, batch: Batch, epoch: int, number: int) -> dict[str, Any]:
        """The tensors of all models' batches [rows, ...], with masks and teachers' outputs."""
        batches = [
            member.completed(batch.of_model(k), epoch, number)
            for k, member in enumerate(self.members)
        ]
        tensors = batch.tensors()
        if batches[0].masks is not None:
            tensors["masks"] = torch.stack([each.masks for each in batches])  # type: ignore[misc]
        pairs = zip(self.members, batches, strict=True)
        by_member: list[Any] = [m.teacher(b) if m.teacher else b.teacher_outputs for m, b in pairs]
        if by_member[0]:
            tensors["teacher_outputs"] = {
                name: torch.stack([outputs[name] for outputs in by_member]) for name in by_member[0]
            }
        return tree_map(self._padded, tensors)

    @torch.no_grad()
    def _after_step(self, statistics: Mapping[str, Tensor], epoch: int, number: int) -> None:
        for k, member in enumerate(self.members):
            if member.companions is not None:
                own = {name: values[k] for name, values in statistics.items()}
                member.companions.after_step(member.model, own, member.progress(epoch, number))

    def _limits(self, factor: str) -> Tensor | None:
        """What clips the gradient of each row, [rows, 1]; None where nothing does."""
        limits = [getattr(member.recipe, factor) or torch.inf for member in self.members]
        if min(limits) == torch.inf:
            return None
        return self._padded(torch.tensor(limits, device=self.flat.device)).unsqueeze(1)

    def _clip(self) -> None:
        if self._largest_norm is not None:
            norms = self._gradients.norm(dim=1, keepdim=True)
            self._gradients *= (self._largest_norm / (norms + 1e-6)).clamp(max=1)
        if (limit := self._largest_value) is not None:
            self._gradients.clamp_(-limit, limit)

    def _padded(self, values: Tensor) -> Tensor:
        """Values [k, ...] with a copy for the empty row of a stack of one: [rows, ...]"""
        missing = self._rows - len(values)
        return torch.cat((values, values[:missing])) if missing else values

    def scores(self, epoch: int) -> list[dict[str, float]]:
        """Each model's metrics; the outputs for a batch are computed for all models at once."""
        shared_outputs = SharedOutputs(self.members, self.outputs)
        scores = []
        with self.options.autocast:
            for k, member in enumerate(self.members):
                member.model.eval()
                with shared_outputs.used_by(k):
                    scores.append(member.scores(epoch, shared_outputs.score(member)))
        return scores

    def progress(self) -> list[dict[str, Tensor]]:
        """Each model's training state, [*shape] by name, as if it had been trained by itself."""
        states = []
        for k, (member, row) in enumerate(zip(self.members, self.rows, strict=True)):
            state = {MODEL + name: tensor for name, tensor in member.model.state_dict().items()}
            if member.companions is not None:
                brought = member.companions.state_dict()
                state |= {COMPANIONS + name: tensor for name, tensor in brought.items()}
            for number, name in enumerate(_trained(member)):
                own_state = as_tensors("", self.optimizer_of[k].state[row])
                for key, value in own_state.items():
                    if value.shape == row.shape:  # else a count of steps
                        value = self.layout.view(value, self._template_name(k, name))
                    state[f"{OPTIMIZER}{number}/{key}"] = value
            added = group_state(self.optimizer_of[k], self.groups[k])
            states.append(state | as_tensors(f"{OPTIMIZER}{GROUP}0/", added))
        return states

    def restore(self, progress: Sequence[Mapping[str, Tensor]]) -> None:
        """Take up the training states, [*shape] by name, of all models."""
        for k, (member, tensors) in enumerate(zip(self.members, progress, strict=True)):
            member.model.load_state_dict(weights_of(tensors), strict=True)
            if member.companions is not None:
                member.companions.load_state_dict(weights_of(tensors, COMPANIONS), strict=True)
            row, names = self.rows[k], _trained(member)
            state: dict[str, Any] = {}
            for path, value in tensors.items():
                if path.startswith(OPTIMIZER):
                    number, key = path.removeprefix(OPTIMIZER).split("/")
                    if number.startswith(GROUP):
                        self.groups[k].update(from_tensor(key, value))
                        continue
                    name = self._template_name(k, names[int(number)])
                    if tuple(value.shape) != self.layout.shapes[name]:
                        state |= from_tensor(key, value)  # a count of steps
                        continue
                    if key not in state:
                        state[key] = torch.zeros_like(row, dtype=value.dtype)
                    self.layout.view(state[key], name).copy_(value)
            if state:
                self.optimizer_of[k].state[row] = state

    def training_mode(self) -> None:
        for member in self.members:
            member.training_mode()
        self.template.train(self.members[0].model.training)
        if self.companions is not None:
            self.companions.train()

    def faults(self, epoch: int) -> dict[int, str]:
        """Which members' weights are not finite, and where."""
        finite = torch.isfinite(self.flat[: len(self.members)]).all(dim=1).tolist()
        faults = {k: self.members[k].fault(epoch) for k, fine in enumerate(finite) if not fine}
        return {k: fault for k, fault in faults.items() if fault}

    def _gathered(self) -> Tensor:
        """All models' weights, [rows, size]; zeros where a model has another kind of head."""
        example = next(self.template.parameters())
        shape = (self._rows, self.layout.size)
        flat = torch.zeros(shape, device=example.device, dtype=example.dtype)
        for k, member in enumerate(self.members):
            for name, weight in with_companions(member.model, member.companions).items():
                view = self.layout.view(flat[k], self._template_name(k, name))
                view.copy_(weight.detach())
                weight.data = view
        return flat

    def _template_name(self, k: int, name: str) -> str:
        """What a weight of the k-th model is called in the template."""
        return self._names[k].get(name, name)

    def _buffers(self) -> dict[str, Tensor]:
        """Of all models and their companions, [rows, *shape] by name; theirs are views of these."""
        buffers_of = [_buffers_of(member) for member in self.members]
        stacked = {}
        for name in buffers_of[0]:
            by_member = [buffers[name] for buffers in buffers_of]
            stacked[name] = self._padded(torch.stack(by_member))
            for buffer, row in zip(by_member, stacked[name], strict=False):
                buffer.data = row
        if kinds := getattr(head_of(self.template), "kinds", None):
            used = [kinds.index(str(head_of(member.model))) for member in self.members]
            which = torch.tensor(used, device=self.flat.device)
            stacked[f"{head_prefix(self.template)}.which"] = self._padded(which)
        return stacked

    def _add_optimizers(self) -> None:
        """One of each kind, with a group of settings for each model that uses it."""
        by_kind: dict[type, Optimizer] = {}
        for k, member in enumerate(self.members):
            row = nn.Parameter(self.flat[k, : self.layout.trained_size])
            row.grad = self._gradients[k]
            optimizer: Optimizer = member.recipe.optimizer([row])
            shared = by_kind.setdefault(type(optimizer), optimizer)
            if shared is not optimizer:
                shared.add_param_group(optimizer.param_groups[0])
            self.rows.append(row)
            self.groups.append(shared.param_groups[-1])
            self.optimizer_of.append(shared)

    # vmap maps the template over rows: inside, a weight has the shape of one model's, and nothing
    # may depend on its values in Python. Weights are leaves in flat's memory, so one backward pass
    # of the summed losses gives each row its own gradient. Anything random inside would be drawn
    # for all rows in another order than for one model: randomness="error" refuses it, and
    # `stack_key` keeps such models out.

    def _vmapped(self, inputs: Mapping[str, Any]) -> Any:
        def loss_of_model(weights: Any, buffers: Any, inputs: Any) -> Any:
            tensors = {name_in_objective(name): t for name, t in (weights | buffers).items()}
            return functional_call(self._objective, tensors, (inputs,))

        with self._attention():
            return vmap(loss_of_model, randomness="error")(self.weights, self.buffers, inputs)

    def _attention(self) -> AbstractContextManager[object]:
        """vmap would call the CPU's fused attention model by model, the plain one at once."""
        on_cpu = self.flat.device.type == "cpu"
        return sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()

    def outputs(self, images: Tensor) -> Tensor:
        """All models' outputs for the same images, [k, batch, outputs]."""

        def forward(weights: Any, buffers: Any) -> Any:
            return functional_call(self.template, weights | buffers, (images,))

        self.template.eval()
        of_model = [
            {name: t for name, t in tensors.items() if not name.startswith(COMPANIONS)}
            for tensors in (self.weights, self.buffers)
        ]
        with self._attention():
            outputs: Tensor = vmap(forward)(*of_model)
        return outputs


def _trained(member: TrainState) -> list[str]:
    weights = with_companions(member.model, member.companions)
    return [name for name, weight in weights.items() if weight.requires_grad]


def _buffers_of(member: TrainState) -> dict[str, Tensor]:
    """Those of its companions have a prefix."""
    companions = (member.companions or nn.Module()).named_buffers()
    brought = {COMPANIONS + name: buffer for name, buffer in companions}
    return {**dict(member.model.named_buffers()), **brought}
