"""The zoo on disk: models, checkpoints, what is known of them."""

from vitarium.store.checkpoint import Checkpoint
from vitarium.store.model_folder import About, Epoch, ModelFolder, Record, Status
from vitarium.store.zoo import Zoo

__all__ = ["About", "Checkpoint", "Epoch", "ModelFolder", "Record", "Status", "Zoo"]
