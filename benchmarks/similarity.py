"""Benchmark 4: CKA of two vision transformers over all pairs of layers, against other packages.

Two ViT-Ti of other seeds see the same random images in batches of the same size: `compare`, the
packages torch-cka and pytorch-cka, and the forward passes alone, in turn. First of
the 12 blocks; then of five layers in each of them (12 norms, attentions, norms, MLPs, blocks), for
torch-cka compares every module there is unless told otherwise. The forward passes bound what can
be gained: where few pairs are compared, there is less to gain. Seconds are the processor's, of one
thread, so that other work on the machine does not count. In the same run the values are checked
against the formula of Nguyen et al. 2021 in float64.

    python benchmarks/similarity.py
"""

import contextlib
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cka as pytorch_cka
import torch
import torch_cka
from rich.console import Console
from rich.table import Table
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from vitarium.evaluation.compare import compare

IMAGES, BATCH, ROUNDS = 512, 256, 9
BLOCKS = [f"blocks.{number}" for number in range(12)]
INSIDE = ("norm1", "attn", "norm2", "mlp", "")
"""In the order that they run in, which is that of torch-cka's results."""
EVERY = [f"{block}.{part}".rstrip(".") for block in BLOCKS for part in INSIDE]
TIMES, AS_FAST, CLOSE = 10.0, 1.0, 1e-4
"""Targets: so many times as fast as torch-cka; so much of pytorch-cka's time at most (two runs of
one thing differ by a tenth, so the median of nine rounds counts); no further from the formula."""


def main() -> int:
    torch.set_num_threads(1)
    models, loader = (vit(0), vit(1)), DataLoader(TensorDataset(images()), batch_size=BATCH)
    # All tokens are features, as the packages have it: so the class token counts as a patch.
    for model in models:
        model.num_prefix_tokens = 0  # type: ignore[assignment]
    blocks = measure("blocks", models, loader, BLOCKS)
    every = measure("every layer", models, loader, EVERY)
    reached = {
        "torch_cka": every["torch_cka"] >= TIMES,
        "pytorch_cka": max(blocks["of_pytorch_cka"], every["of_pytorch_cka"]) <= AS_FAST,
        "exact": max(blocks["off"], every["off"]) <= CLOSE,
    }
    print(f"{every['torch_cka']:.1f} times as fast as torch-cka on every layer (target {TIMES:g})")
    print(
        json.dumps(
            {"benchmark": "similarity", "blocks": blocks, "every": every, "reached": reached}
        )
    )
    return 0 if all(reached.values()) else 1


def measure(
    title: str,
    models: tuple[nn.Module, nn.Module],
    loader: "DataLoader[Any]",
    layers: Sequence[str],
) -> dict[str, float]:
    """Print a table; seconds and ratios by name."""
    ways: dict[str, Callable[[], Any]] = {
        "forward passes alone": lambda: forward(models, loader),
        "vitarium": lambda: ours(models, loader, layers),
        "pytorch-cka": lambda: theirs(models, loader, layers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():  # once for whatever is loaded at first use
        way()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            seconds[name].append(timed(way)[0])
    spent = {name: statistics.median(each) for name, each in seconds.items()}
    spent["torch-cka"], oldest = timed(lambda: older(models, loader, layers))
    exact, found = formula(models, loader, layers), ours(models, loader, layers)
    table = Table(title=f"CKA of two ViT-Ti, {title}: {len(layers)} x {len(layers)} pairs")
    for column in ("", "seconds", "beyond forward", "largest difference from float64"):
        table.add_column(column, justify="right")
    values = {"vitarium": found, "pytorch-cka": theirs(models, loader, layers)}
    values["torch-cka"] = oldest
    for name, time_spent in spent.items():
        beyond = time_spent - spent["forward passes alone"]
        off = f"{float((values[name] - exact).abs().max()):.1e}" if name in values else ""
        table.add_row(name, f"{time_spent:.2f}", f"{beyond:.2f}", off)
    Console().print(table)
    return {
        **{f"{name}_s": round(each, 3) for name, each in spent.items()},
        "torch_cka": spent["torch-cka"] / spent["vitarium"],
        "of_pytorch_cka": statistics.median(
            a / b for a, b in zip(seconds["vitarium"], seconds["pytorch-cka"], strict=True)
        ),
        "off": float((found - exact).abs().max()),
    }


def ours(models: Any, loader: Any, layers: Sequence[str]) -> Tensor:
    table = compare(*models, loader, layers=layers, tokens="patches", batch_size=BATCH)
    return torch.tensor(table.to_numpy())


def theirs(models: Any, loader: Any, layers: Sequence[str]) -> Tensor:
    settings = {"layers": list(layers), "device": "cpu", "progress": False}
    found: Tensor = pytorch_cka.compute_cka(*models, loader, **settings)[0]
    return found


def older(models: Any, loader: Any, layers: Sequence[str]) -> Tensor:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        one = torch_cka.CKA(*models, model1_layers=list(layers), model2_layers=list(layers))
        one.compare(loader)
    for model in models:  # it leaves its hooks in
        for module in model.modules():
            module._forward_hooks.clear()
    found: Tensor = one.hsic_matrix
    return found


def forward(models: Any, loader: Any) -> None:
    with torch.inference_mode():
        for (batch,) in loader:
            for model in models:
                model(batch)


def formula(models: Any, loader: Any, layers: Sequence[str]) -> Tensor:
    """Nguyen et al. 2021, eq. 2 and 3, of float64 features of the float32 models."""
    sums = torch.zeros(3, len(layers), len(layers), dtype=torch.float64)
    for (batch,) in loader:
        kernels = [[off_diagonal(x) for x in outputs(model, batch, layers)] for model in models]
        for i, one in enumerate(kernels[0]):
            sums[1, i] += hsic(one, one)
            for j, other in enumerate(kernels[1]):
                sums[0, i, j] += hsic(one, other)
        for j, other in enumerate(kernels[1]):
            sums[2, :, j] += hsic(other, other)
    return sums[0] / (sums[1] * sums[2]).sqrt()


def outputs(model: nn.Module, batch: Tensor, layers: Sequence[str]) -> list[Tensor]:
    seen: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.update({name: output.double().flatten(1)})
        )
        for name in layers
    ]
    with torch.inference_mode():
        model(batch)
    for hook in hooks:
        hook.remove()
    return [seen[name] for name in layers]


def off_diagonal(features: Tensor) -> Tensor:
    return (features @ features.T).fill_diagonal_(0)


def hsic(k: Tensor, other: Tensor) -> Tensor:
    n = len(k)
    product, rows = (k * other).sum(), (k.sum(1), other.sum(1))
    middle = rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2))
    return (product + middle - 2 / (n - 2) * (rows[0] @ rows[1])) / (n * (n - 3))


def vit(seed: int) -> nn.Module:
    """ViT-Ti with patches of 8 pixels on images of 32: 17 tokens."""
    torch.manual_seed(seed)
    model: nn.Module = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=192, depth=12, num_heads=3, num_classes=10
    )
    return model.eval()


def images() -> Tensor:
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


if __name__ == "__main__":
    sys.exit(main())
