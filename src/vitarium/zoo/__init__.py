"""The zoo on disk: models and checkpoints; what recipes are made of is imported when used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vitarium.zoo.model import Model
from vitarium.zoo.zoo import Zoo

if TYPE_CHECKING:
    from vitarium.zoo._model_files import About, Epoch, Record, Status
    from vitarium.zoo.checkpoint import Checkpoint
    from vitarium.zoo.model_folder import ModelFolder

__all__ = ["About", "Checkpoint", "Epoch", "Model", "ModelFolder", "Record", "Status", "Zoo"]

_HOMES = {"Checkpoint": "checkpoint", "ModelFolder": "model_folder"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vitarium.zoo' has no attribute '{name}'")
    return getattr(import_module(f"vitarium.zoo.{_HOMES.get(name, '_model_files')}"), name)
