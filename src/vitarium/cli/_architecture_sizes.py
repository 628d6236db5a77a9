"""How many parameters architectures have: they are built without memory."""

from vitarium.core.cache import remembered

_OUTPUTS = 1000


def default_sizes() -> dict[str, int]:
    """Parameters of each architecture's default with 1000 outputs; not of one without defaults."""
    sizes: dict[str, int] = remembered("architecture-sizes", _default_sizes)
    return sizes


def architecture_sizes(name: str) -> dict[str, int]:
    """Parameters of an architecture's presets with 1000 outputs, by their names."""
    sizes: dict[str, int] = remembered(f"architecture-sizes-{name}", lambda: _preset_sizes(name))
    return sizes


def _default_sizes() -> dict[str, int]:
    from vitarium.core.config import InvalidConfig
    from vitarium.core.registry import choose, plugins

    sizes = {}
    for name in plugins("architecture"):
        try:
            section = choose("architecture", name)
        except InvalidConfig:  # it needs a setting, as timm's models a name
            continue
        sizes[name] = _count(section)
    return sizes


def _preset_sizes(name: str) -> dict[str, int]:
    from vitarium.core.registry import choose, get

    presets = get("architecture", name).facts["presets"] or {}
    return {
        preset: _count(choose("architecture", name, **values)) for preset, values in presets.items()
    }


def _count(section: object) -> int:
    from vitarium.core.devices import meta_device

    with meta_device():
        model = section(_OUTPUTS)  # type: ignore[operator]
    return sum(parameter.numel() for parameter in model.parameters())
