"""Benchmark 12: weight matching of two ViT-S: seconds, and how close the weights come.

In one run, on the same two models of other seeds whose norms, biases and scales of layers are
drawn too: `weight_matching`; the paper's algorithm as plain loops in float64 NumPy over the same
symmetries (tests/reference/weight_matching.py); and the package rebasin, where it is installed. It
traces a model, and of a ViT it moves the hidden units of the MLPs alone. What counts is the inner
product of all weights, in float64, at a fixed point: no move may be left that gains anything. The
best of several rounds counts, since other work on the machine can only take time away.

    python benchmarks/matching.py
    python benchmarks/matching.py --depth 4 --rounds 1
"""

import argparse
import contextlib
import importlib.util
import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients

SECONDS = 10.0
"""Target: at most, on two cores."""
CLOSE = 1e-9
"""What rounding may take from an objective, relative."""
Made = Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=12, help="blocks of the models")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = [vit(seed, args.depth) for seed in (0, 1)]
    symmetries = vit_symmetries(models[0])
    weights = [{n: t.clone() for n, t in model.state_dict().items()} for model in models]
    reference = _reference()
    ways: dict[str, Callable[[], Made]] = {
        "vitarium, 2 starts": lambda: ours(symmetries, weights),
        "vitarium, 1 start": lambda: ours(symmetries, weights, restarts=1),
        "plain loops": lambda: reference.weight_matching(symmetries, *weights)[0],
    }
    if importlib.util.find_spec("rebasin"):
        ways["rebasin"] = lambda: theirs(models)
    else:
        print("rebasin is not installed")
    rows = {}
    for name, way in ways.items():
        rounds = args.rounds if name.startswith("vitarium") else 1
        found = [timed(way) for _ in range(rounds)]
        rows[name] = row(found, symmetries, *weights)
    show(rows)
    _, left = reference.weight_matching(symmetries, weights[0], ours(symmetries, weights))
    own = rows["vitarium, 2 starts"]
    reached = {
        "seconds": own["seconds"] <= SECONDS,
        "fixed point": left[-1] - left[0] <= CLOSE * abs(left[0]),
        "plain loops": own["objective"] >= (1 - CLOSE) * rows["plain loops"]["objective"],
        "rebasin": "rebasin" not in rows or own["objective"] > rows["rebasin"]["objective"],
    }
    gained = {name: each["objective"] - each["before"] for name, each in rows.items()}
    print(f"{own['seconds']:.1f} s (target {SECONDS:g}); gained: " + _told(gained))
    print(json.dumps({"benchmark": "matching", "rows": rows, "reached": reached}))
    return 0 if all(reached.values()) else 1


def ours(symmetries: Symmetries, weights: list[dict[str, Tensor]], **settings: int) -> Made:
    models = [Weights(f"model {n}", each) for n, each in enumerate(weights)]
    ingredients = Ingredients(models, symmetries=lambda: symmetries)
    return dict(choose("operator", "weight_matching", **settings)(ingredients))


def theirs(models: list[Any]) -> Made:
    from rebasin import PermutationCoordinateDescent

    one, other = (vit(0, len(model.blocks), nn.LayerNorm) for model in models)  # not timm's own
    for copy, model in zip((one, other), models, strict=True):
        copy.load_state_dict(model.state_dict())
    with contextlib.redirect_stderr(io.StringIO()):
        PermutationCoordinateDescent(one, other, torch.zeros(1, 3, 224, 224)).rebasin()
    return other.state_dict()


def row(
    found: list[tuple[tuple[float, float], Made]],
    symmetries: Symmetries,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
) -> dict[str, float]:
    """The fastest round's seconds, the objectives, and how many tensors were moved."""
    made = {name: torch.as_tensor(tensor) for name, tensor in found[0][1].items()}
    return {
        "seconds": min(wall for (wall, _), _ in found),
        "processor": min(processor for (_, processor), _ in found),
        "before": objective(first, second),
        "objective": objective(first, made),
        "moved": sum(not torch.equal(made[n].double(), t.double()) for n, t in second.items()),
        "of": len(second),
    }


def objective(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return sum(float((one[n].double() * other[n].double()).sum()) for n in one)


def show(rows: Mapping[str, Mapping[str, float]]) -> None:
    table = Table(title="Weight matching of two ViT-S", title_justify="left")
    for column in ("", "seconds", "processor", "inner product", "before", "tensors moved"):
        table.add_column(column, justify="right")
    for name, each in rows.items():
        cells = [f"{each[key]:.2f}" for key in ("seconds", "processor", "objective", "before")]
        table.add_row(name, *cells, f"{each['moved']:.0f} of {each['of']:.0f}")
    Console().print(table)


def vit(seed: int, depth: int, norm: type[nn.Module] | None = None) -> nn.Module:
    """As it is initialized; but its biases and norms, which start as zeros and ones, are drawn."""
    torch.manual_seed(seed)
    model: nn.Module = VisionTransformer(
        embed_dim=384, num_heads=6, depth=depth, num_classes=100, norm_layer=norm
    )
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.02 * torch.randn(parameter.shape)
    return model.eval().requires_grad_(False)


def timed(work: Callable[[], Made]) -> tuple[tuple[float, float], Made]:
    """Seconds on the clock, and of the processor."""
    started, busy = time.perf_counter(), time.process_time()
    made = work()
    return (time.perf_counter() - started, time.process_time() - busy), made


def _reference() -> ModuleType:
    file = Path(__file__).parents[1] / "tests" / "reference" / "weight_matching.py"
    spec = importlib.util.spec_from_file_location("weight_matching_reference", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _told(gained: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in gained.items())


if __name__ == "__main__":
    sys.exit(main())
