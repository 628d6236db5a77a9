"""vitarium: grow, keep, measure and use populations of vision transformers.

    import vitarium
    growth = vitarium.grow("demo", "demo-zoo")
    zoo = vitarium.Zoo.open("demo-zoo")
    zoo.models()

Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitarium.architectures.create import create_model
    from vitarium.blueprint import Blueprint, Plan, plan
    from vitarium.compression.compress import compress
    from vitarium.core.checkpoint_ref import CheckpointRef
    from vitarium.core.errors import VitariumError
    from vitarium.engine.grow import Growth, grow
    from vitarium.formats.export import export
    from vitarium.formats.hub.push import push
    from vitarium.formats.import_zoo import import_zoo
    from vitarium.lineage.recover import recover
    from vitarium.measures._runner.measure import measure
    from vitarium.operators._runner.merge import merge
    from vitarium.studies._runner.study import study
    from vitarium.zoo import Model, Zoo

__all__ = [
    "Blueprint",
    "CheckpointRef",
    "Growth",
    "Model",
    "Plan",
    "VitariumError",
    "Zoo",
    "compress",
    "create_model",
    "export",
    "grow",
    "import_zoo",
    "measure",
    "merge",
    "plan",
    "push",
    "recover",
    "study",
]

_HOMES = {
    "Blueprint": "vitarium.blueprint",
    "CheckpointRef": "vitarium.core.checkpoint_ref",
    "Growth": "vitarium.engine.grow",
    "Model": "vitarium.zoo",
    "Plan": "vitarium.blueprint",
    "VitariumError": "vitarium.core.errors",
    "Zoo": "vitarium.zoo",
    "compress": "vitarium.compression.compress",
    "create_model": "vitarium.architectures.create",
    "export": "vitarium.formats.export",
    "grow": "vitarium.engine.grow",
    "import_zoo": "vitarium.formats.import_zoo",
    "measure": "vitarium.measures._runner.measure",
    "merge": "vitarium.operators._runner.merge",
    "plan": "vitarium.blueprint",
    "push": "vitarium.formats.hub.push",
    "recover": "vitarium.lineage.recover",
    "study": "vitarium.studies._runner.study",
}

__version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from vitarium.core.version import installed_version

        return installed_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'vitarium' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
