"""LoRA for the peft library: a folder per adapter, and the base that it changes beside it."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitarium.adaptations._factors import in_rows, parts_of
from vitarium.adaptations.lora import LowRank, merge
from vitarium.architectures.heads import is_head
from vitarium.blueprint import ModelSpec
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.devices import meta_device
from vitarium.formats._peft_adapter import CONFIG, PREFIX, WEIGHTS
from vitarium.formats._preprocessing import Preprocessed
from vitarium.formats._timm_folder import refuses_other_than_timms, timm_config, write_timm_folder
from vitarium.formats.base import (
    Checkpoints,
    checkpoint_name,
    exporter,
    refuses_additions,
    taken_elsewhere,
)
from vitarium.formats.weights import fingerprint
from vitarium.zoo import Zoo
from vitarium.zoo.merged_checkpoint import is_factor

_README = """---
library_name: peft
base_model: {base}
---

# {name}

A LoRA of `../{base}`, which is epoch {parent_epoch} of model {parent} without its head.

```python
import timm
from peft import PeftModel

base = timm.create_model("local-dir:{base}", pretrained=True, num_classes={num_classes})
model = PeftModel.from_pretrained(base, "{name}").eval()
plain = model.merge_and_unload()
```
"""


class PeftFolder(Preprocessed):
    """How timm is told to prepare images for the base."""


class LoraPair(NamedTuple):
    """The change B A of a linear layer's weight, times alpha / rank."""

    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank]
    alpha: float

    @property
    def rank(self) -> int:
        return len(self.a)


def refuses(config: PeftFolder, zoo: Zoo, checkpoint: CheckpointRef) -> str | None:
    spec = zoo.spec(checkpoint.model)
    if not isinstance(spec, ModelSpec):
        return f"it was trained elsewhere, and no factors of it are kept; {taken_elsewhere('timm')}"
    if reason := refuses_additions(config, zoo, checkpoint):
        return reason
    adaptation = spec.recipe.adaptation
    if adaptation.facts["merge"] is not merge:
        why = f"its adaptation is '{adaptation.name}', which is no LoRA"
        return f"{why}; {taken_elsewhere('timm')}"
    if not any(map(is_factor, zoo.checkpoint(*checkpoint, plain=False))):
        return f"it has no factors of LoRA: it was merged; {taken_elsewhere('timm')}"
    return refuses_other_than_timms(config, zoo, checkpoint) or _refuses_what_learned(zoo, spec)


def _refuses_what_learned(zoo: Zoo, spec: ModelSpec) -> str | None:
    """peft keeps what learned beside the factors as modules, which it finds by ends of names."""
    model = _meta_model(zoo, spec)
    learned, saved = _learned(model), _saved_modules(model)
    if "" in saved:
        loose = next(name for name in learned if "." not in name)
        return f"its {loose} learned, which stands in no layer, and peft keeps layers alone"
    for name, module in model.named_modules():
        has_parameters = any(True for _ in module.parameters(recurse=False))
        if has_parameters and name not in saved and name.endswith(tuple(saved)):
            return f"peft would take its {name} for one of the layers that learned"
    if spec.conversion and not all(is_head(model, name) for name in learned):
        return "more than LoRA and a head learned, and its parent was converted before"
    return None


@exporter("peft", refuses=refuses, paper="Hu et al. 2022, arXiv 2106.09685")
def peft_folders(config: PeftFolder, zoo: Zoo, models: Checkpoints, out: Path) -> Iterator[Path]:
    """A folder per LoRA that peft's PeftModel.from_pretrained loads, and the bases for timm.

    Factors of a fused qkv become one LoRA of that layer: A stacked, B zero outside of each matrix's
    rows and columns. What learned beside the factors stands in modules_to_save.
    """
    for checkpoint in models:
        spec = zoo.spec(checkpoint.model)
        assert isinstance(spec, ModelSpec)
        stored = zoo.state_dict(*checkpoint, plain=False)
        settings = timm_config(zoo, checkpoint.model, config, headless=True)
        weights = _base_weights(zoo, spec, stored)
        base = f"base-{sha256(f'{fingerprint(weights)}{settings}'.encode()).hexdigest()[:12]}"
        if not (out / base).exists():  # children of a parent have it in common
            write_timm_folder(out / base, settings, weights)
            yield out / base
        folder = out / checkpoint_name(checkpoint)
        _write_adapter(folder, base, spec, _meta_model(zoo, spec), stored)
        yield folder


def _write_adapter(
    folder: Path, base: str, spec: ModelSpec, model: nn.Module, stored: Mapping[str, Tensor]
) -> None:
    pairs, saved = lora_pairs(spec.recipe.adaptation.config, stored), _saved_modules(model)
    folder.mkdir()
    described = json.dumps(_adapter_config(pairs, saved, base), indent=2)
    (folder / CONFIG).write_text(described + "\n", encoding="utf-8")
    tensors = _adapter_tensors(pairs, saved, stored)
    save_file(tensors, folder / WEIGHTS[0], metadata={"format": "pt"})
    values = {"name": folder.name, "base": base, "num_classes": model.num_classes}
    readme = _README.format(**values, parent=spec.parent, parent_epoch=spec.parent_epoch)
    (folder / "README.md").write_text(readme, encoding="utf-8")


def lora_pairs(config: LowRank, stored: Mapping[str, Tensor]) -> dict[str, LoraPair]:
    """By linear layer, of an adapted model's tensors by name: one pair for all its matrices."""
    factors: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in filter(lambda item: is_factor(item[0]), stored.items()):
        layer, _, factor = name.partition(".adaptation.")
        factors[layer][factor] = tensor
    pairs = {}
    for layer, tensors in factors.items():
        rows = len(stored[f"{layer}.weight"])
        parts = [p for p in parts_of(layer, rows) if f"{p.matrix}_A" in tensors]
        a = torch.cat([tensors[f"{part.matrix}_A"] for part in parts])
        blocks = torch.block_diag(*(tensors[f"{part.matrix}_B"] for part in parts))
        heights = [part.stop - part.start for part in parts]
        b = in_rows(dict(zip(parts, blocks.split(heights), strict=True)), rows)
        pairs[layer] = LoraPair(a, b, config.alpha * len(parts))
    return pairs


def _adapter_tensors(
    pairs: Mapping[str, LoraPair], saved: list[str], stored: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    tensors = {}
    for layer, pair in pairs.items():
        tensors[f"{PREFIX}{layer}.lora_A.weight"] = pair.a.contiguous()
        tensors[f"{PREFIX}{layer}.lora_B.weight"] = pair.b.contiguous()
    saved_tensors = {n: t for n, t in stored.items() if n.rpartition(".")[0] in saved}
    return tensors | {f"{PREFIX}{name}": tensor for name, tensor in saved_tensors.items()}


def _adapter_config(pairs: Mapping[str, LoraPair], saved: list[str], base: str) -> dict[str, Any]:
    """The most frequent rank is `r`; other layers stand in patterns."""
    sizes = {layer: (pair.rank, pair.alpha) for layer, pair in pairs.items()}
    ((rank, alpha), _), *_ = Counter(sizes.values()).most_common(1)
    others = {layer: size for layer, size in sizes.items() if size != (rank, alpha)}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {layer: size[0] for layer, size in others.items()},
        "alpha_pattern": {layer: size[1] for layer, size in others.items()},
        "target_modules": list(pairs),
        "modules_to_save": saved or None,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }


def _base_weights(zoo: Zoo, spec: ModelSpec, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the adapted model started from, without a head: what is frozen in it, and its parent's
    tensors in place of what learned."""
    model, parent = _meta_model(zoo, spec), CheckpointRef(str(spec.parent), spec.parent_epoch or 0)
    learned = _learned(model)
    frozen = {n: t for n, t in stored.items() if not is_factor(n) and n not in learned}
    replaced = [name for name in learned if not is_head(model, name)]
    before = zoo.checkpoint(*parent) if replaced else {}
    return frozen | {name: before[name] for name in replaced}


def _meta_model(zoo: Zoo, spec: ModelSpec) -> nn.Module:
    """As it is trained, without values."""
    with meta_device():
        return spec.recipe.build(zoo.folder(spec.id).about().num_outputs, plain=False)


def _learned(model: nn.Module) -> dict[str, None]:
    """Names of the parameters that learn, factors left out, in the model's order."""
    parameters = model.named_parameters()
    return {name: None for name, p in parameters if p.requires_grad and not is_factor(name)}


def _saved_modules(model: nn.Module) -> list[str]:
    """Names of the layers that learn themselves."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in _learned(model)))
