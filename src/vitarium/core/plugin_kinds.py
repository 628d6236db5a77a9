"""The kinds of plug-ins."""

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "architecture": "vitarium.architectures",
    "head": "vitarium.architectures",
    "initialization": "vitarium.architectures",
    "adaptation": "vitarium.adaptations",
    "dataset": "vitarium.data.datasets",
    "augmentation": "vitarium.data.augmentations",
    "policy": "vitarium.data.augmentations.policies",
    "objective": "vitarium.objectives",
    "optimizer": "vitarium.training.optimizers",
    "schedule": "vitarium.training.schedules",
    "operator": "vitarium.operators",
    "measure": "vitarium.measures",
    "weight_encoder": "vitarium.encoders",
    "lineage": "vitarium.lineage.methods",
    "study": "vitarium.studies",
    "logger": "vitarium.engine.loggers",
    "importer": "vitarium.formats",
    "exporter": "vitarium.formats",
}
"""Each kind of plug-in, and where the modules lie that register ours: a package, or one module."""
