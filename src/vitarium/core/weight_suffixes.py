"""What files of weights are called."""

from collections.abc import Iterable
from pathlib import Path

from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.parameters import call
from vitarium.core.printable import printable

SAFETENSORS = ".safetensors"
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
SUFFIXES = (SAFETENSORS, *PICKLES)
"""How names of files that may hold weights end; all but safetensors are pickles."""
INDEX = ".index.json"
"""How the name of a file ends that says which tensors are in which of a model's shards."""


def weight_suffix(name: str) -> str:
    """The ending of a weight file's name, the longest that fits; "" for a name of no such file."""
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def not_in_zoo(name: str, zoo: Path, ids: Iterable[str]) -> InvalidInput:
    """The error for a model that is not in a zoo; a file of weights has to be imported first."""
    if not weight_suffix(name) and not name.endswith(INDEX):
        return UnknownName("model", name, ids)
    label = printable(name)
    command = call("import_zoo", label, zoo=str(zoo))
    what = f"'{label}' is a file, not a model of a zoo"
    return InvalidInput(f"{what}; import it first, and name it by its id: {command}")
