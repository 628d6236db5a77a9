"""vitarium: grow, keep, measure and use populations of vision transformers.

    import vitarium
    growth = vitarium.grow("demo", "demo-zoo")
    zoo = vitarium.Zoo.open("demo-zoo")
    zoo.models()

Nothing heavy is imported before it is used; the names and where they are: `__init__.pyi`.
"""

import sys
from typing import Any

import lazy_loader

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from vitarium.core.version import installed_version

        return installed_version()
    if name not in __all__:  # with both, Python says what may be meant
        fault = f"module 'vitarium' has no attribute '{name}'"
        raise AttributeError(fault, name=name, obj=sys.modules[__name__])
    return _attribute(name)
