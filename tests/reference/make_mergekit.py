"""Write mergekit.safetensors: what mergekit makes of three small models and their base.

    pip install mergekit==0.1.5
    python tests/reference/make_mergekit.py

The version is in the file. What mergekit draws at random is in it, too, as masks.
"""

from importlib.metadata import version
from pathlib import Path

import torch
from mergekit.merge_methods.api import merge_state_dicts
from mergekit.sparsify import RescaleNorm, SparsificationMethod, sparsify
from safetensors.torch import save_file

MODELS = ("one", "two", "three")
WEIGHTS = {"one": 1.0, "two": 0.5, "three": 2.0}
SHAPES = {"attn.proj.weight": (6, 20), "attn.proj.bias": (50,), "norm.weight": (1,)}
SIGNED = {"lambda": 0.7, "weight": WEIGHTS, "rescale": False, "normalize": True}
WITH_BASE = {
    "task_arithmetic": {"lambda": 0.4, "weight": WEIGHTS},
    "ties": {**SIGNED, "density": 0.3},
    "breadcrumbs": {"lambda": 0.4, "weight": WEIGHTS, "density": 0.5, "gamma": 0.1},
    "breadcrumbs_ties": {**SIGNED, "density": 0.5, "gamma": 0.1},
    "dare_linear": {"lambda": 0.8, "weight": WEIGHTS, "density": 0.4, "rescale": True},
    "dare_ties": {**SIGNED, "density": 0.4, "rescale": True},
    "model_stock": {},
}
DELLA = {**SIGNED, "density": 0.5, "epsilon": 0.2, "rescale": True}
"""Not for tensors of one entry: mergekit divides by zero there."""
ALONE = {"multislerp": {"weight": WEIGHTS}, "karcher": {"max_iter": 100, "tol": 1e-12}}
SEED = 5


def main():
    generator = torch.Generator().manual_seed(0)
    states = {
        model: {n: torch.randn(s, generator=generator).double() for n, s in SHAPES.items()}
        for model in ("base", *MODELS)
    }
    models = {model: states[model] for model in MODELS}
    made = {f"given/{model}": state for model, state in states.items()}
    for method, parameters in WITH_BASE.items():
        torch.manual_seed(SEED)
        made[method] = merge_state_dicts(states, method, parameters=parameters, base="base")
    torch.manual_seed(SEED)
    large = {m: {n: t for n, t in s.items() if t.numel() > 1} for m, s in states.items()}
    made["della"] = merge_state_dicts(large, "della", parameters=DELLA, base="base")
    for method, parameters in ALONE.items():
        made[method] = merge_state_dicts(models, method, parameters=parameters)
    made["linear"] = merge_state_dicts(models, "linear", parameters={"weight": WEIGHTS})
    two = {model: states[model] for model in MODELS[:2]}
    made["slerp"] = merge_state_dicts(two, "slerp", parameters={"t": 0.3}, base="one")
    made |= masks(states, "random", density=0.4)
    made |= masks(large, "della_magprune", density=0.5, epsilon=0.2)
    flat = {f"{key}/{n}": t.contiguous() for key, state in made.items() for n, t in state.items()}
    file = Path(__file__).with_name("mergekit.safetensors")
    save_file(flat, file, metadata={"mergekit": version("mergekit")})


def masks(states, method, **how):
    """Which entries mergekit kept, in the order in which it draws them."""
    torch.manual_seed(SEED)
    kept = {f"{method}/{model}": {} for model in MODELS}
    for name in states["base"]:
        for model in MODELS:
            delta = states[model][name] - states["base"][name]
            left = sparsify(
                delta, method=SparsificationMethod(method), rescale_norm=RescaleNorm.l1, **how
            )
            kept[f"{method}/{model}"][name] = (left != 0).to(torch.uint8)
    return kept


if __name__ == "__main__":
    main()
