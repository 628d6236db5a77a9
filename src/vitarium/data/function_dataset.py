"""A function as a data set: `@vitarium.dataset` makes a plug-in of one that returns images."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints, overload

import torch
from pydantic import Field, create_model
from torch import Tensor

from vitarium.core.errors import InvalidData, InvalidInput, VitariumError
from vitarium.core.registry import register
from vitarium.data._function_images import split_of
from vitarium.data.base import DataConfig, DataFolders, Dataset, Expected, Images
from vitarium.data.splits import with_splits, with_test_split

_DATA_DIR = "data_dir"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
F = TypeVar("F", bound=Callable[..., Any])


@overload
def dataset(function: F) -> F: ...
@overload
def dataset(
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    num_train: int | None = None,
    num_val: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    paper: str = "",
) -> Callable[[F], F]: ...
def dataset(
    function: Any = None,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    num_train: int | None = None,
    num_val: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    paper: str = "",
) -> Any:
    """Make a data set of a function: a plug-in that blueprints choose by the function's name.

        @vitarium.dataset
        def stripes(split, noise: float = 0.1, size: int = 32):
            "Images of stripes."
            return images, labels

    The function is called with "train", "val" and "test". It returns (images, labels): uint8 or
    floating-point pixels in [0, 1], as an array [n, h, w] or [n, h, w, c] or a tensor [n, h, w] or
    [n, c, h, w], and integers [n], or booleans [n, classes] for several labels; or a
    `torch.utils.data.Dataset` with a length, of pairs of an image (Pillow's, or such an array or
    tensor of one image) and its label; or None for "val" or "test": then these images are taken
    from those for training. Its further parameters are the settings, checked by their annotations;
    one that is called `data_dir` is given the folder that is looked into first. It has to return
    the same whenever it is called.

    Args:
        name: of the plug-in; None: the function's.
        classes: names of the classes; None: the attribute `classes` of what the function returns
            for "train", else their numbers.
        num_classes, num_train, num_val: known without calling the function, so that a plan can be
            made; num_train counts before validation images are taken from them, num_val is of
            those that the function returns for "val".
        mean, std: of the pixels in [0, 1], per channel; None: those of the training images where
            these are an array or a tensor, else ImageNet's.
        paper: authors, year and arXiv number, or an address.

    Raises TypeError for a function that takes no split, or a setting that has neither a type nor a
    default, and ValueError where the name is taken.
    """
    if num_classes is None and classes is not None:
        num_classes = len(classes)
    counts = Expected(num_classes, num_train, num_val)
    facts: Any = {"name": name, "classes": classes, "counts": counts, "paper": paper}
    facts |= {"mean": mean, "std": std}
    if function is None:
        return partial(_registered, **facts)
    return _registered(function, **facts)


def _registered(
    function: Callable[..., Any],
    *,
    name: str | None,
    classes: Sequence[str] | None,
    counts: Expected,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    paper: str,
) -> Callable[..., Any]:
    name = name or function.__name__
    config = _config(function, name)

    @wraps(function)
    def read(config: DataConfig, folders: DataFolders) -> Dataset:
        parts = {split: _called(function, name, split, config, folders) for split in _SPLITS}
        return _dataset(name, config, parts, classes, mean, std)

    facts: dict[str, Any] = {"expected": lambda config: counts, "mean": mean, "std": std}
    unused: dict[str, Any] = {"fixed": False, "num_classes": None, "num_train": None, "tiny": None}
    unused |= {"several_labels": False}  # known when it is called
    register("dataset", name, config, **facts, **unused, paper=paper)(read)
    return function


_SPLITS = ("train", "val", "test")


def _config(function: Callable[..., Any], name: str) -> type[DataConfig]:
    """The settings of a function, from its parameters but the first."""
    types = get_type_hints(function, include_extras=True)
    documented = _documented(inspect.getdoc(function) or "")
    parameters = [*inspect.signature(function).parameters.values()]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in kinds:
        raise TypeError(f"data set '{name}': its first parameter is the split; write {name}(split)")
    fields: dict[str, Any] = {}
    for parameter in parameters[1:]:
        setting, default = parameter.name, parameter.default
        if setting == _DATA_DIR:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"data set '{name}': name each setting; {parameter} has no name")
        if setting in DataConfig.model_fields:
            raise TypeError(f"data set '{name}': call the setting '{setting}' otherwise")
        is_required = default is parameter.empty
        kind = types.get(setting, None if is_required or default is None else type(default))
        if kind is None or get_origin(kind) in (list, dict, set) or kind in (list, dict, set):
            example = f"{setting}: int" if kind is None else f"{setting}: tuple[int, ...]"
            raise TypeError(f"data set '{name}': give the setting a type, such as {example}")
        what = documented.get(setting, f"The function's argument '{setting}'.")
        about = Field(... if is_required else default, description=what)
        fields[setting] = (Annotated[kind, about], ... if is_required else default)
    title = "".join(word.title() for word in name.split("_"))
    return create_model(title, __base__=DataConfig, __module__=function.__module__, **fields)


def _documented(text: str) -> dict[str, str]:
    """What a docstring says of each argument, under `Args:`."""
    _, _, arguments = text.partition("Args:\n")
    entries = re.findall(r"^ +(\w+):\s*(.+(?:\n {5,}.+)*)", arguments, re.MULTILINE)
    return {name: " ".join(about.split()) for name, about in entries}


def _called(
    function: Callable[..., Any], name: str, split: str, config: DataConfig, folders: DataFolders
) -> Any:
    """What the function returns for a split. Raises InvalidInput where it fails."""
    names = [*inspect.signature(function).parameters][1:]
    settings = {each: getattr(config, each) for each in names if each != _DATA_DIR}
    if _DATA_DIR in names:
        settings[_DATA_DIR] = folders.all[0]
    try:
        return function(split, **settings)
    except VitariumError:
        raise
    except Exception as error:  # whatever is wrong with it
        where = f"data set '{name}': its function failed for the split '{split}'"
        raise InvalidInput(f"{where}: {type(error).__name__}: {error}") from error


def _dataset(
    name: str,
    config: DataConfig,
    parts: Mapping[str, Any],
    classes: Sequence[str] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> Dataset:
    splits = {
        split: split_of(name, split, part) for split, part in parts.items() if part is not None
    }
    if "train" not in splits:
        raise InvalidData(f"data set '{name}': there are no images to train on")
    train, test = splits["train"], splits.get("test")
    normalization = _normalization(train.images)
    if test is None:
        train, test = with_test_split(train.images, train.labels)
    names = classes or getattr(parts["train"], "classes", None)
    if names is None:
        several = train.labels.shape[1] if train.is_multilabel else None
        count = several or 1 + max(int(split.labels.max()) for split in splits.values())
        names = map(str, range(count))
    return with_splits(
        name,
        tuple(map(str, names)),
        config,
        train=train,
        val=splits.get("val"),
        test=test,
        mean=mean or normalization[0],
        std=std or normalization[1],
    )


def _normalization(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the pixels in [0, 1] per channel; ImageNet's of what is no tensor."""
    if not isinstance(images, Tensor):
        channels = len(images[0])
        return _IMAGENET if channels == len(_IMAGENET[0]) else ((0.5,) * channels,) * 2
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        share = counts / counts.sum()
        mean = (share * levels).sum()
        means.append(mean.item())
        deviations.append((share * (levels - mean) ** 2).sum().sqrt().clamp(min=1 / 255).item())
    return tuple(means), tuple(deviations)
