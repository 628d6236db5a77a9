"""The zoo on disk: models, checkpoints, what is known of them.

A model's folder, and with it all that recipes are made of, is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vitarium.zoo.model import Model
from vitarium.zoo.zoo import Zoo

if TYPE_CHECKING:
    from vitarium.zoo.checkpoint import Checkpoint
    from vitarium.zoo.model_folder import About, Epoch, ModelFolder, Record, Status

__all__ = ["About", "Checkpoint", "Epoch", "Model", "ModelFolder", "Record", "Status", "Zoo"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vitarium.zoo' has no attribute '{name}'")
    module = "checkpoint" if name == "Checkpoint" else "model_folder"
    return getattr(import_module(f"vitarium.zoo.{module}"), name)
