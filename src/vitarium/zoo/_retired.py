"""A model's folder on its way out, while another one takes its place.

Two moves replace a folder; who is killed between them leaves the zoo without the model, whose
weights others may build on. The next one who writes into the zoo puts it back.
"""

import re
from pathlib import Path

from vitarium.core import files
from vitarium.core.file_faults import writing

_NAME = re.compile(r"\.([0-9a-f]{12})-before\.tmp")


def replace_model(zoo: Path, id: str, staging: Path) -> None:
    """Put a whole folder in the place of the model's, if there is one. Raises NotWritable."""
    model_folder, retired = zoo / "models" / id, zoo / f".{id}-before.tmp"
    with writing(model_folder):
        if files.exists(model_folder):
            files.discard(retired, root=zoo)
            model_folder.replace(retired)
        staging.replace(model_folder)
    files.sync_folder(model_folder.parent)
    files.discard(retired, root=zoo)


def restore_retired(zoo: Path) -> None:
    """Put back what nothing took the place of. Raises LeadsOutside and NotWritable."""
    for retired in filter(files.is_leftover, files.listed(zoo)):
        if not (match := _NAME.fullmatch(retired.name)):
            continue
        model_folder = zoo / "models" / match[1]
        if files.exists(model_folder):
            files.discard(retired, root=zoo)
        elif files.exists(retired / "model.json"):
            files.check_inside(model_folder.parent, zoo)
            with writing(model_folder):
                retired.replace(model_folder)
            files.sync_folder(model_folder.parent)
