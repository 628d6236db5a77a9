"""Imported zoos of weights that a test makes."""

import csv

import torch
from safetensors.torch import save_file

from vitarium import Zoo, import_zoo


def near(weights, seed, step=0.01):
    """Weights that differ a little, as after fine-tuning; integers stay."""
    noise = torch.Generator().manual_seed(seed)
    return {
        n: t + step * torch.randn(t.shape, generator=noise) if t.is_floating_point() else t
        for n, t in weights.items()
    }


def imported(folder, *models):
    """A zoo of weights with what the table says of each, and the ids by name. Those that name no
    architecture are tensors alone."""
    folder.mkdir()
    rows = []
    for number, (weights, columns) in enumerate(models):
        separate = {name: tensor.clone().contiguous() for name, tensor in weights.items()}
        save_file(separate, folder / f"{number}.safetensors")
        rows.append({"file": f"{number}.safetensors", "architecture": "none", **columns})
    with (folder / "models.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(c for row in rows for c in row)))
        writer.writeheader()
        writer.writerows(rows)
    zoo = folder.with_name(f"{folder.name}-zoo")
    import_zoo(folder, zoo)
    opened = Zoo.open(zoo)
    return opened, {opened.spec(id).imported.name: id for id in opened.ids()}
