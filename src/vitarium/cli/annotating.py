"""`vitarium tag`, `note` and `rename-stage`: words of people beside models."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from vitarium.cli import _completion as completion
from vitarium.cli._options import Models, Where, ZooFolder, argument, option
from vitarium.core.errors import InvalidInput, UnknownName, VitariumError
from vitarium.core.numerals import counted
from vitarium.core.terminal import print_line


def tag(
    directory: ZooFolder,
    models: Models = None,
    *,
    tag: Annotated[str, argument("A text without commas.", metavar="TAG")],
    where: Where = "",
    remove: Annotated[
        bool, option("--remove", "Remove the tag; without models: from all models.")
    ] = False,
) -> None:
    """Add a tag to models, or remove it. `ls` lists tags, and SQL has them as a column.

    Examples:

      vitarium tag demo-zoo 3f2a 77b0 best

      vitarium tag demo-zoo --where "test_accuracy < 0.8" weak

      vitarium ls demo-zoo --where "tags LIKE '%best%'"

      vitarium tag demo-zoo best --remove
    """
    from vitarium.zoo import annotations

    if not (models or where or remove):
        raise InvalidInput(f"say which models to tag, e.g. vitarium tag {directory} 3f2a {tag}")
    change = annotations.untag if remove else annotations.tag
    try:
        changed = change(directory, models or None, tag, where=where)
    except UnknownName as error:
        if error.kind != "model" or not _names_model(directory, tag):
            raise
        example = f"vitarium tag {directory} {tag} {error.name}"
        fault = f"'{error.name}' is no model of the zoo; the tag comes last: {example}"
        raise InvalidInput(fault) from None
    _print("untagged" if remove else "tagged", changed)


def note(
    directory: ZooFolder,
    models: Models = None,
    *,
    note: Annotated[str, argument('A text; "" removes the note.', metavar="NOTE")],
    where: Where = "",
) -> None:
    """Write a note beside models; it replaces the one before.

    Example:  vitarium note demo-zoo 3f2a "trained on a hot day"
    """
    from vitarium.zoo import annotations

    _print("annotated", annotations.note(directory, models or None, note, where=where))


def rename_stage(
    directory: ZooFolder,
    old: Annotated[
        str, argument("The stage as it is shown.", metavar="OLD", autocompletion=completion.stages)
    ],
    new: Annotated[str, argument("Its new name.", metavar="NEW")],
) -> None:
    """Show a stage under another name; ids and the models' own files stay as they are.

    Growing the blueprint again does not train these models again. To undo it, give the first name.

    Example:  vitarium rename-stage demo-zoo finetune "other laboratory"
    """
    from vitarium.zoo.annotations import rename_stage as rename

    rename(directory, old, new)
    print_line(f"stage {old} is shown as {new}")


def _names_model(directory: Path, name: str) -> bool:
    from vitarium.zoo import Zoo

    with suppress(VitariumError):
        return bool(Zoo.open(directory).find(name))
    return False


def _print(verb: str, changed: list[str]) -> None:
    listed = f": {', '.join(changed)}" if changed else ""
    print_line(f"{counted(len(changed), 'model')} {verb}{listed}")
