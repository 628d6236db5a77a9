"""Folders that `timm.create_model("local-dir:...", pretrained=True)` builds and loads."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import timm
import torch

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.parameters import parameter
from vitarium.formats._preprocessing import Preprocessed
from vitarium.formats._timm_folder import refuses_other_than_timms, timm_config, write_timm_folder
from vitarium.formats.base import Checkpoints, Skipped, checkpoint_name, exporter, taken_elsewhere
from vitarium.zoo import Zoo


class TimmFolder(Preprocessed):
    """How timm is told of the model, and whether it is asked."""

    check: bool = True
    """Load each exported folder with timm, and check that its outputs equal the zoo's bit for
    bit."""


@exporter(
    "timm",
    refuses=refuses_other_than_timms,
    opened_by='timm.create_model("local-dir:{path}", pretrained=True)',
)
def timm_folder(
    config: TimmFolder, zoo: Zoo, models: Checkpoints, out: Path
) -> Iterator[Path | Skipped]:
    """A folder per model that timm.create_model("local-dir:...", pretrained=True) loads."""
    for checkpoint in models:
        folder = out / checkpoint_name(checkpoint)
        settings = timm_config(zoo, checkpoint.model, config)
        write_timm_folder(folder, settings, zoo.state_dict(*checkpoint))
        fault = config.check and _fault(
            zoo, checkpoint, folder, settings["pretrained_cfg"]["input_size"]
        )
        if fault:
            shutil.rmtree(folder)
        yield Skipped(checkpoint, fault) if fault else folder


def _fault(zoo: Zoo, checkpoint: CheckpointRef, folder: Path, size: Sequence[int]) -> str | None:
    """Whether what timm loads is another function."""
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    timm_model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        same = torch.equal(timm_model(images), zoo.load(*checkpoint)(images))
    if same:
        return None
    hint = f"{taken_elsewhere()}; or keep the folder: {parameter('check', False)}"
    return f"what timm loads has other outputs than the zoo's model; {hint}"
