"""Models of the Hugging Face hub on this machine: from its cache, or downloaded once."""

from pathlib import Path
from typing import Any

from vitarium.core.errors import InvalidInput
from vitarium.core.hub_faults import quiet_hub

HUB = "hf-hub:"
"""Before the name of a repository, as timm has it."""
_FILES = ["*.json", "*.safetensors"]


def downloaded(name: str) -> Path:
    """The folder of `hf-hub:OWNER/NAME`, or `hf-hub:OWNER/NAME@REVISION`; config and weights alone.

    What is in the hub's cache is not asked for again. Raises InvalidInput where it is not there and
    cannot be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.removeprefix(HUB).partition("@")
    options: dict[str, Any] = {"revision": revision or None, "allow_patterns": _FILES}
    try:
        return Path(snapshot_download(repository, local_files_only=True, **options))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise InvalidInput(f"{name}: {error}") from None
    try:
        with quiet_hub():
            return Path(snapshot_download(repository, **options))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).partition("\n")[0]
        what = f"{name} is not in the hub's cache, and cannot be downloaded ({reason})"
        raise InvalidInput(f"{what}; put the model's folder here, and name that") from None
