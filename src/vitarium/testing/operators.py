"""The contract of operators, checked: whatever is registered has to pass."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch

from vitarium.core.errors import VitariumError
from vitarium.core.registry import choose
from vitarium.data.load import load
from vitarium.data.loader import SplitName
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.choose import chosen
from vitarium.operators._runner.plan import MergePlan
from vitarium.testing._rules import Contract
from vitarium.testing._tiny_zoo import CLASSES, tiny_zoo
from vitarium.zoo import Zoo


def check_operator(name: str) -> None:
    """Check that a registered operator keeps to the contract, `vitarium.operators.base.operator`.

    It merges tiny models with the operator's `tiny` settings.
    """
    rule = Contract("operator", name)
    facts = rule.facts
    rule(facts["title"], "it has a title")
    with tiny_zoo(facts["tiny_architecture"]) as zoo:
        # as many as the operator takes: children of one parent, or one model
        children = zoo.models().query("parent.notna()").sort_values("parent")
        models = children["id"].tolist()[: facts["models"][0]]
        if facts["epochs"]:
            models = [children["parent"].iloc[0]]
        _check_result(rule, zoo, models)
        _check_images(rule, zoo, models)
        if facts["models"][1] != 1 and not facts["epochs"]:
            _check_copies(rule, zoo, models[0])
        _check_refusals(rule, zoo, models)
        if facts["members"]:
            _check_members(rule, zoo, models[0])


def _plan(rule: Contract, zoo: Zoo, models: Sequence[str], **settings: Any) -> MergePlan:
    section = choose("operator", rule.name, **{**rule.facts["tiny"], **settings})
    sources = ModelLoader(zoo, data=None, device="cpu", data_dir=None)
    return MergePlan(sources, section, chosen(zoo, section, models))


def _check_result(rule: Contract, zoo: Zoo, models: Sequence[str]) -> None:
    id = _plan(rule, zoo, models).save()
    weights = Zoo.open(zoo.path).state_dict(id)
    for name, tensor in weights.items():
        rule(torch.isfinite(tensor).all(), f"weights are finite, and {name} is not")
    architecture = zoo.spec(id).origin.architecture
    assert architecture
    outputs = zoo.load(id)(torch.randn(2, *architecture.config.input_size))
    rule(outputs.shape == (2, CLASSES), "the merged model runs, with the same classes")
    again = _plan(rule, zoo, models)
    rule(again.spec.id == id, "the same merge has the same id")
    same = all(torch.equal(tensor, weights[name]) for name, tensor in again.weights().items())
    rule(same, "the same merge has the same bits")


def _check_members(rule: Contract, zoo: Zoo, model: str) -> None:
    """Each of the models inside of one is made, and they differ."""
    settings = list(rule.facts["members"](zoo[model], {}))
    specs = {_plan(rule, zoo, [model], **values).spec.id for values in settings}
    rule(settings and len(specs) == len(settings), "its members are some, and no two are alike")


def _check_images(rule: Contract, zoo: Zoo, models: Sequence[str]) -> None:
    """Without a split it loads no data; with one, no other's images."""
    split, splits = rule.facts["split"], set()
    examples = ModelLoader.examples

    def watched(self: ModelLoader, model: str, split: SplitName, *args: Any, **kwargs: Any) -> Any:
        splits.add(split)
        return examples(self, model, split, *args, **kwargs)

    with (
        patch.object(ModelLoader, "examples", watched),
        patch("vitarium.data.load.load", wraps=load) as loading,
    ):
        _plan(rule, zoo, models).weights()
    rule(split or not loading.called, "without a split it loads no data")
    alone = f"it sees images of its split alone ({split or 'it has none'})"
    rule(splits <= {split}, f"{alone}, and it read {', '.join(sorted(splits))}")


def _check_copies(rule: Contract, zoo: Zoo, model: str) -> None:
    settings = rule.facts["identity_on_copies"]
    if settings is False:
        return
    copies = [model] * min(3, rule.facts["models"][1] or 3)
    merged = _plan(rule, zoo, copies, **settings).weights()
    same = f"copies of one model give that model with {settings or 'its tiny settings'}"
    for name, tensor in zoo.state_dict(model).items():
        close = torch.allclose(merged[name], tensor, rtol=1e-4, atol=1e-6)
        rule(close, f"{same}, and {name} differs")


def _check_refusals(rule: Contract, zoo: Zoo, models: Sequence[str]) -> None:
    id = models[-1]
    weights = zoo.state_dict(id)
    tensor = "norm.weight" if "norm.weight" in weights else next(iter(weights))
    weights[tensor] = weights[tensor].clone()
    weights[tensor][1] = float("inf")
    zoo.folder(id).commit(3, {}, weights, None)
    message = _refusal(rule, zoo, [*models[:-1], f"{id}@3"])
    holds = f"{id}@3: {tensor} has entries that are not" in message
    rule(holds, "a model that is not finite is refused with its name and the tensor's")
    message = _refusal(rule, zoo, [])
    counted = any(f"{rule.name} {verb}" in message for verb in ("needs", "combines"))
    rule(counted, "too few models are refused with the number that it needs")


def _refusal(rule: Contract, zoo: Zoo, models: Sequence[str]) -> str:
    try:
        _plan(rule, zoo, models).weights()
    except VitariumError as error:
        return str(error)
    return ""
