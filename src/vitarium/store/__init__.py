"""The zoo on disk: models, checkpoints, what is known of them."""

from vitarium.store.model_folder import About, Epoch, ModelFolder, Status
from vitarium.store.zoo import Zoo

__all__ = ["About", "Epoch", "ModelFolder", "Status", "Zoo"]
