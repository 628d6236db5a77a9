"""What files of weights are called."""

SAFETENSORS = ".safetensors"
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
SUFFIXES = (SAFETENSORS, *PICKLES)
"""How names of files that may hold weights end; all but safetensors are pickles."""
INDEX = ".index.json"
"""How the name of a file ends that says which tensors are in which of a model's shards."""


def weight_suffix(name: str) -> str:
    """The ending of a weight file's name, the longest that fits; "" for a name of no such file."""
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")
