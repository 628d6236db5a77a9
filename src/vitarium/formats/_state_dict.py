"""Which of a checkpoint's contents are the model's weights, and what its tensors are called.

A training program saves the state dict under a key, beside an average of the weights (EMA), an
optimizer and settings; the names of tensors begin with what the model was wrapped in. Both are
undone here.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from vitarium.core.config import Config
from vitarium.core.errors import CorruptFile, InvalidInput, UntrustedFile
from vitarium.core.parameters import parameter
from vitarium.core.printable import encodable
from vitarium.evaluation.scope import HEADS
from vitarium.formats._pickles import inert_name, runs_code
from vitarium.zoo._format.packing import unstorable

KEYS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params"),
    *("student", "teacher"),
)
"""Keys under which training programs keep the state dict, the usual ones first."""
_COPIES = frozenset({"student", "teacher"})
"""Keys of models of which none is the usual one."""
_WRAPPERS = {
    *("module", "model", "vit", "dinov2", "deit", "backbone", "encoder", "trunk", "net", "network"),
    *("student", "teacher", "base_model", "base_encoder", "momentum_encoder"),
    *("encoder_q", "encoder_k", "online_encoder", "target_encoder"),
}
"""Names of modules in which training programs wrap a model."""
_TRANSPARENT = {
    *("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"),
}
"""What torch.compile, FSDP, checkpointing and Fabric put into names, at any level."""
_NO_TRUNK = {
    *(*HEADS, "dino_head", "ibot_head", "projector", "predictor", "projection_head"),
    *("criterion", "loss_fn", "queue", "queue_ptr", "n_averaged"),
}
"""Modules and buffers that stand beside a wrapped model."""
_RESERVED = "__metadata__"  # in the header of a safetensors file
_MAX_DEPTH = 3  # of keys
_MAX_LISTED = 6


class NoStateDict(InvalidInput):
    """A file that holds no tensors by name: an optimizer's state, say."""


class StateDictSettings(Config):
    """Which of a file's tensors are the model's."""

    wrapped_in: Annotated[str, Field(min_length=1)] | None = None
    """Key of the state dict in a pickle (`model.state_dict` for nested ones); default: a usual one
    (state_dict, model, ...), else the pickle itself."""
    ema: bool = False
    """Take the exponential moving average (EMA) of the weights, from files that have it beside the
    trained weights."""
    prefix: Annotated[str, Field(min_length=1)] | None = None
    """Take only tensors whose names begin with this and a dot (student, backbone, ...); default:
    all, without a prefix that all of them share."""


def is_ema(name: str) -> bool:
    """Whether a key or module is called an exponential moving average."""
    return "ema" in re.split("[^a-z0-9]+", name.lower())


def state_dict_in(
    content: Any, path: Path, settings: StateDictSettings
) -> tuple[Mapping[str, Tensor], list[str], bool]:
    """The state dict in a pickle's content, notes, and whether it is an average.

    Raises NoStateDict, CorruptFile, UntrustedFile, and InvalidInput for a setting that does not
    apply, and where only a setting tells which model is meant.
    """
    if not isinstance(content, Mapping):
        raise _no_state_dict(content, path)
    candidates = _candidates(content)
    if settings.wrapped_in is not None:
        chosen, notes = settings.wrapped_in, list[str]()
        inner = _at(content, chosen)
        if not isinstance(inner, Mapping):
            keys = ", ".join(_candidates(content, any_key=True)) or "no key"
            what = f"nothing stands under '{chosen}' (wrapped_in)"
            raise InvalidInput(f"{path}: {what}; its tensors stand under {keys}")
    elif candidates:
        chosen, notes = _choose(candidates, "wrapped_in", path, settings.ema)
        inner = candidates[chosen]
    else:
        return tensors_of(content, path), [], False
    return tensors_of(inner, path), notes, is_ema(chosen)


def unwrapped(
    names: Sequence[str],
    path: Path,
    settings: StateDictSettings | None = None,
    *,
    ema: bool = False,
) -> tuple[dict[str, str], list[str]]:
    """Names of tensors without what the model was wrapped in -> their names in the file, and notes.

    A wrapper goes where all tensors of the trunk begin with it. Raises InvalidInput for a setting
    that does not apply, and where only a setting tells which of several models is meant.

    Args:
        ema: whether these are known to be an average.
    """
    settings = settings or StateDictSettings()
    ours, notes, prefix = _transparent(names), list[str](), settings.prefix
    while True:
        groups = _groups(ours)
        copies = _copies(groups)
        if prefix and any(name.startswith(f"{prefix}.") for name in ours):
            chosen, prefix = prefix, None
            beside = [name for name in ours if not name.startswith(f"{chosen}.")]
            notes += [f"prefix={chosen} leaves out {_listed(beside)}"] if beside else []
        elif copies and not prefix:
            chosen, which = _choose(dict.fromkeys(copies), "prefix", path, settings.ema and not ema)
            notes, ema = notes + which, ema or is_ema(chosen)
        else:
            wrapper = _wrapper(ours, groups)
            if wrapper is None:
                break
            ema = ema or is_ema(wrapper)
            ours = {
                name.removeprefix(f"{wrapper}."): before
                for name, before in ours.items()
                if name != "n_averaged"  # of torch's AveragedModel
            }
            continue
        start = f"{chosen}."
        ours = {n.removeprefix(start): before for n, before in ours.items() if n.startswith(start)}
    if prefix:
        raise InvalidInput(f"{path}: no tensor begins with '{prefix}.' (prefix); {_listed(ours)}")
    if settings.ema and not ema:
        raise InvalidInput(f"{path}: it has no average of the weights (ema=true); {_listed(ours)}")
    return ours, notes


def _candidates(
    content: Mapping[Any, Any], *, any_key: bool = False, depth: int = 1
) -> dict[str, Mapping[str, Any]]:
    """State dicts in it by their dotted keys, usual keys alone or any, in the order of `KEYS`."""
    candidates: dict[str, Mapping[str, Any]] = {}
    usual = [key for key in KEYS if key in content]
    averages = [key for key in content if isinstance(key, str) and is_ema(key)]
    keys = [key for key in content if isinstance(key, str)] if any_key else [*usual, *averages]
    for key in keys:
        inner = content[key]
        if not isinstance(inner, Mapping):
            continue
        if (
            deeper := _candidates(inner, any_key=any_key, depth=depth + 1)
            if depth < _MAX_DEPTH
            else {}
        ):
            candidates |= {f"{key}.{path}": tensors for path, tensors in deeper.items()}
        elif _has_tensors(inner):
            candidates[key] = inner
    return candidates


def _choose(
    candidates: Mapping[str, Any], setting: str, path: Path, ema: bool
) -> tuple[str, list[str]]:
    """One of several models by its key or prefix, and a note where another could be meant."""
    averages = [name for name in candidates if is_ema(name)]
    trained = [name for name in candidates if not is_ema(name)]
    if ema and averages:
        return averages[0], []
    usual = [name for name in trained if _COPIES.isdisjoint(name.split("."))]
    if not trained:
        what = "the average of the weights (EMA) is taken; the trained weights are not there"
        return averages[0], [what]
    if len(trained) > 1 and (setting == "prefix" or not usual):
        which = " and ".join(trained)
        how = f"say which one to import, e.g. {parameter(setting, trained[-1])}"
        raise InvalidInput(f"{path} holds several models, {which}: {how}")
    first = (usual or trained)[0]
    if averages:
        how = f"the trained weights ({first}) are taken, not their average ({averages[0]})"
        return first, [f"{how}; {parameter('ema', True)} takes that"]
    return first, []


def _at(content: Mapping[Any, Any], keys: str) -> Any:
    """What stands under a key, or under dotted keys inside of one another; None for nothing."""
    if keys in content:
        return content[keys]
    first, dotted, rest = keys.partition(".")
    inner = content.get(first)
    return _at(inner, rest) if dotted and isinstance(inner, Mapping) else None


def tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Dense tensors by name, without gradients. Raises as `state_dict_in` does."""
    if not isinstance(content, Mapping) or not _has_tensors(content):
        raise _no_state_dict(content, path)
    for name, value in content.items():
        if name_of_class := inert_name(value):
            raise UntrustedFile(path, runs_code(name_of_class))
        if not isinstance(name, str):
            raise NoStateDict(f"{path}: a tensor's key is {name!r}, no name")
        if not isinstance(value, Tensor):
            raise NoStateDict(_no_tensor(name, value, content, path))
        if encodable(name) != name:
            raise CorruptFile(path, f"a tensor is called {name!r}, which is no text in UTF-8")
        if name == _RESERVED:
            what = f"a tensor is called {name!r}, which no checkpoint file can hold"
            raise InvalidInput(f"{path}: {what}; rename it, or leave it out")
        if value.device.type != "cpu":
            raise CorruptFile(path, f"{name} has a shape and no numbers")
        if reason := unstorable(value):
            raise InvalidInput(f"{path}: {name} {reason}; convert it, or leave it out")
        # a view can claim any size of a few bytes
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CorruptFile(path, f"{name} claims more numbers than the file has")
    return {name: tensor.detach() for name, tensor in content.items()}


def _no_state_dict(content: Any, path: Path) -> Exception:
    if name := inert_name(content):
        return UntrustedFile(path, runs_code(name))
    if not isinstance(content, Mapping) or not content:
        return NoStateDict(f"{path} holds a {type(content).__name__}, not tensors by name")
    inner = [value for key in KEYS if isinstance(value := content.get(key), Mapping)]
    for value in (value for mapping in (content, *inner) for value in mapping.values()):
        if name := inert_name(value):
            return UntrustedFile(path, runs_code(name))
    key, value = next(iter(content.items()))
    return NoStateDict(_no_tensor(key, value, content, path))


def _no_tensor(key: Any, value: Any, content: Mapping[Any, Any], path: Path) -> str:
    keys = list(_candidates(content, any_key=True))
    under = f"tensors stand under {', '.join(keys[:_MAX_LISTED])}"
    hint = f"; {under}: {parameter('wrapped_in', keys[0])}" if keys else ""
    return f"{path}: {key!r} is a {type(value).__name__}, not a tensor{hint}"


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _transparent(names: Sequence[str]) -> dict[str, str]:
    short = {".".join(p for p in name.split(".") if p not in _TRANSPARENT): name for name in names}
    return short if len(short) == len(names) else {name: name for name in names}


def _groups(names: Mapping[str, str]) -> dict[str, set[str]]:
    """What follows the first part of the trunk's names, by that part."""
    groups: dict[str, set[str]] = {}
    for name in names:
        first, _, rest = name.partition(".")
        if first not in _NO_TRUNK:
            groups.setdefault(first, set()).add(rest)
    return groups


def _copies(groups: Mapping[str, set[str]]) -> list[str]:
    """Wrappers beside one another that hold the same model, or nearly."""
    wrappers = [name for name in groups if name in _WRAPPERS or is_ema(name)]
    return [
        name
        for name in wrappers
        if any(
            2 * len(groups[name] & groups[second]) >= min(len(groups[name]), len(groups[second]))
            for second in wrappers
            if second != name
        )
    ]


def _wrapper(names: Mapping[str, str], groups: Mapping[str, set[str]]) -> str | None:
    """The one wrapper that all of the trunk is in."""
    if len(groups) != 1:
        return None
    ((wrapper, inner),) = groups.items()
    if "" in inner or not (wrapper in _WRAPPERS or is_ema(wrapper)):
        return None
    shorter = {name.removeprefix(f"{wrapper}.") for name in names}
    return wrapper if len(shorter) == len(names) else None


def _listed(names: Sequence[str] | Mapping[str, str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    return f"{', '.join(listed[:_MAX_LISTED])}{more}"
