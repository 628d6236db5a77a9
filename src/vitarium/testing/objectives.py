"""The contract of objectives."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from vitarium.core import seeds
from vitarium.core.devices import meta_device
from vitarium.core.registry import choose, section
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss
from vitarium.objectives.companions import Companions, Progress, TeacherWithCompanions
from vitarium.objectives.distillation.base import PROBABILITIES
from vitarium.testing._rules import TINY_VIT, Contract
from vitarium.training._objective_module import ObjectiveModule

_CLASSES = 3


def check_objective(name: str, **settings: Any) -> None:
    """Test that an objective keeps to its contract (`objectives/base.py`), on a tiny ViT, or
    its `tiny_architecture`.

    A scalar loss with finite gradients for every parameter, its companions' too, scalar metrics
    without graph, nothing random, no state that the loss itself changes, a loss that falls in a few
    steps on a batch, the same bits after a state was saved and restored, the same loss under vmap
    as one model at a time, the mean of those of a batch's parts where it is `per_image`, and finite
    scores of a split. An objective with a teacher is given another tiny ViT as its teacher.
    """
    rule = Contract("objective", name, settings)
    section, facts = rule.section, rule.facts
    model, companions = _with_companions(rule)
    beside = () if companions is None else (companions,)
    if companions is not None:
        companions.before_step(Progress(epoch=1, epochs=2, step=0, steps=20))
    batch, *parts = _taught(rule, model, 1) + _taught(rule, model, 3)

    state = deepcopy({} if companions is None else companions.state_dict())
    loss = section(model, batch, *beside)
    rule(isinstance(loss, Loss) and loss.value.ndim == 0, "it has to return a Loss of a scalar")
    for metric, value in loss.metrics.items():
        holds = value.ndim == 0 and not value.requires_grad
        rule(holds, f"metric '{metric}' has to be a scalar without graph")
    loss.value.backward()
    named = model.named_parameters()
    learning = {f"the model's {n}": p for n, p in named if p.requires_grad}
    if companions is not None:
        named = companions.named_parameters()
        learning |= {f"the companions' {n}": p for n, p in named if p.requires_grad}
        for tensor, value in companions.state_dict().items():
            holds = _is_statistic(companions, tensor) or torch.equal(value, state[tensor])
            rule(holds, f"the loss changed the companions' {tensor}: leave that to after_step")
    for parameter, weight in learning.items():
        holds = weight.grad is not None and bool(weight.grad.isfinite().all())
        rule(holds, f"the gradient of {parameter} is missing or not finite")
    repeated = section(model, batch, *beside)
    rule(torch.equal(loss.value, repeated.value), "the same model and batch gave another loss")

    if facts["per_image"]:
        mean = sum(section(model, part, *beside).value for part in parts) / len(parts)
        holds = torch.allclose(mean, loss.value, rtol=1e-4, atol=1e-6)
        rule(holds, "its loss is not the mean of those of a batch's parts: give per_image=False")
    stacked = _losses_under_vmap(section, model, batch, companions)
    holds = torch.allclose(stacked, loss.value.detach().expand(2), rtol=1e-4, atol=1e-6)
    rule(holds, "under vmap it gives another loss, so it cannot be trained in a stack")

    _check_steps(rule)
    _check_without_memory(rule)

    with torch.inference_mode():
        scores = facts["evaluate"](
            section.config,
            model.eval(),
            lambda split, limit: iter([_batch(6, 1), _batch(3, 1)]),
            ["val"],
        )
    rule(set(scores) == {"val"}, f"evaluate was asked for val and gave {sorted(scores)}")
    holds = not facts["scores"] or {*scores["val"]} == {*facts["scores"]}
    rule(holds, f"it declares the scores {facts['scores']} and gave {(*scores['val'],)}")
    for metric, score in scores["val"].items():
        holds = isinstance(score, float) and math.isfinite(score)
        rule(holds, f"score '{metric}' is {score!r}, not a finite float")


def _with_companions(rule: Contract, seed: int = 0) -> tuple[nn.Module, Companions | None]:
    """A tiny model, with what the objective brings beside it."""
    facts, config = rule.facts, rule.section.config
    with seeds.seeded(seed):
        sizes = facts["tiny_architecture"] or {"name": "vit", **TINY_VIT}
        build = section("architecture", {**sizes, "img_size": TINY_VIT["img_size"]})
        model: nn.Module = build(facts["outputs"](config, _CLASSES))
        if not facts["trains_head"]:
            choose("head", "none")(model, _CLASSES)
        if facts["head"]:
            choose("head", facts["head"])(model, _CLASSES)
        if facts["prepare"]:
            facts["prepare"](config, model, True)
        companions = facts["companions"] and facts["companions"](config, model, _CLASSES)
    rule(
        companions is None or isinstance(companions, Companions),
        f"companions gave {type(companions).__name__}, no Companions",
    )
    return model, companions


def _check_without_memory(rule: Contract) -> None:
    """Whether it goes with a model is seen on the meta device, before training."""
    try:
        with meta_device():
            _with_companions(rule)
    except RuntimeError as error:
        rule(False, f"prepare and companions have to work on the meta device, too: {error}")


def _is_statistic(companions: nn.Module, name: str) -> bool:
    """Whether it is a running statistic of batch normalization, which a forward pass changes."""
    return isinstance(companions.get_submodule(name.rpartition(".")[0]), _BatchNorm)


def _check_steps(rule: Contract) -> None:
    """The loss falls on a batch, and a state that was saved goes on to the same bits."""
    losses, states = _steps(rule, 12)
    rule(losses[-1] < losses[0], f"its loss does not fall in 12 steps: {losses[0]}, {losses[-1]}")
    resumed, _ = _steps(rule, 12, states)
    rule(resumed == losses[6:], "a training that was interrupted goes on to other losses")


def _steps(
    rule: Contract, steps: int, states: Sequence[Mapping[str, Any]] | None = None
) -> tuple[list[float], list[dict[str, Any]]]:
    """Losses of the steps, and the states after 6 of them; or of those from there on."""
    model, companions = _with_companions(rule)
    beside = () if companions is None else (companions,)
    parts = [model] if companions is None else [model, companions]
    (batch,) = _taught(rule, model, 1)
    learning = [p for part in parts for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-3)
    stateful: list[Any] = [*parts, optimizer]
    for part, state in zip(stateful, states or (), strict=False):
        part.load_state_dict(state)
    losses, saved = [], []
    for step in range(6 if states else 0, steps):
        if step == 6:
            saved = deepcopy([part.state_dict() for part in stateful])
        progress = Progress(epoch=1, epochs=1, step=step, steps=steps)
        if companions is not None:
            companions.before_step(progress)
        loss = rule.section(model, batch, *beside)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        if companions is not None:
            with torch.no_grad():
                companions.after_step(model, loss.statistics, progress)
        losses.append(loss.value.item())
    return losses, saved


def _taught(rule: Contract, model: torch.nn.Module, count: int) -> list[Batch]:
    """A batch in so many parts, with a teacher's outputs where the objective has a teacher."""
    batch = _batch(6, rule.facts["views"])
    if make_masks := rule.facts["masks"]:
        masks = make_masks(rule.section.config, model)
        generator = torch.Generator().manual_seed(0)
        shape = (len(batch.images), masks.numbers)
        drawn = torch.rand(shape, dtype=torch.float64, generator=generator)
        batch = replace(batch, masks=masks.masks(drawn))
    if rule.facts["stored_outputs"]:
        stored = batch.targets.flip(0) * 0.7 + 0.1
        batch = replace(batch, teacher_outputs={PROBABILITIES: stored})
    parts = batch.parts(count)
    make = rule.facts["teacher_outputs"]
    if not make:
        return parts
    teacher, _ = _with_companions(rule, seed=1)
    if bring := rule.facts["teacher_companions"]:
        with seeds.seeded(1):
            teacher = TeacherWithCompanions(teacher, bring(rule.section.config, teacher))
    outputs_of = make(rule.section.config, teacher.eval(), model, parts[0].images[:1])

    def masks_of(part: Batch) -> tuple[Tensor, ...]:
        return () if part.masks is None else (part.masks,)

    with torch.no_grad():
        return [
            replace(part, teacher_outputs=outputs_of(part.images, *masks_of(part)))
            for part in parts
        ]


def _batch(images: int, views: int) -> Batch:
    generator = torch.Generator().manual_seed(images)
    labels = torch.arange(images) % _CLASSES
    pixels = torch.randn(views * images, 3, 16, 16, generator=generator)
    return Batch(pixels, labels, F.one_hot(labels, _CLASSES).float())


def _losses_under_vmap(
    section: Any, model: nn.Module, batch: Batch, companions: Companions | None
) -> Tensor:
    """Of two copies of the model, [2]."""
    module = ObjectiveModule(model, section, companions)
    weights = {
        name: torch.stack([weight.detach()] * 2) for name, weight in module.named_parameters()
    }
    buffers = {name: torch.stack([buffer] * 2) for name, buffer in module.named_buffers()}

    def loss(weights: Any, buffers: Any) -> Any:
        return functional_call(module, {**weights, **buffers}, (batch.tensors(),))[0]

    with sdpa_kernel(SDPBackend.MATH):  # vmap would call the fused attention model by model
        losses: Tensor = vmap(loss, randomness="error")(weights, buffers)
    return losses
