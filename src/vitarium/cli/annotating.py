"""`vitarium tag`, `note` and `rename-stage`: words of people beside models."""

from typing import Annotated

from vitarium.cli._options import Models, Where, ZooFolder, argument, option
from vitarium.core.numerals import counted
from vitarium.core.terminal import print_line


def tag(
    directory: ZooFolder,
    models: Models = None,
    *,
    tag: Annotated[str, argument("A text without commas.", metavar="TAG")],
    where: Where = "",
    remove: Annotated[bool, option("--remove", "Remove it; without models: from all.")] = False,
) -> None:
    """Add a tag to models, or remove it. Tags are a column of `ls`, and of SQL.

    Examples:

      vitarium tag demo-zoo 3f2a 77b0 best

      vitarium tag demo-zoo --where "test_accuracy < 0.8" weak

      vitarium ls demo-zoo --where "tags LIKE '%best%'"

      vitarium tag demo-zoo best --remove
    """
    from vitarium.zoo import annotations

    if remove:
        changed = annotations.untag(directory, models or None, tag, where=where)
    else:
        changed = annotations.tag(directory, models or None, tag, where=where)
    _print("untagged" if remove else "tagged", changed)


def note(
    directory: ZooFolder,
    models: Models = None,
    *,
    note: Annotated[str, argument('A text; "" removes the note.', metavar="NOTE")],
    where: Where = "",
) -> None:
    """Write a note beside models, in the place of the one before.

    Example:  vitarium note demo-zoo 3f2a "trained on a hot day"
    """
    from vitarium.zoo import annotations

    _print("annotated", annotations.note(directory, models or None, note, where=where))


def rename_stage(
    directory: ZooFolder,
    old: Annotated[str, argument("The stage as it is shown.", metavar="OLD")],
    new: Annotated[str, argument("Its new name.", metavar="NEW")],
) -> None:
    """Show a stage under another name; ids and the models' own files stay as they are.

    Growing the same blueprint again grows nothing twice. The first name, given again, ends it.

    Example:  vitarium rename-stage demo-zoo finetune "other laboratory"
    """
    from vitarium.zoo.annotations import rename_stage as rename

    rename(directory, old, new)
    print_line(f"stage {old} is shown as {new}")


def _print(verb: str, changed: list[str]) -> None:
    listed = f": {', '.join(changed)}" if changed else ""
    print_line(f"{counted(len(changed), 'model')} {verb}{listed}")
