"""`vitarium export` and `vitarium push`: a zoo for other programs, and for the hub."""

from pathlib import Path
from typing import Annotated

import typer

from vitarium.cli._options import UNCHECKED
from vitarium.cli._progress import progress_bar
from vitarium.cli._settings import Settings, parsed
from vitarium.cli._tables import print_rows, size
from vitarium.cli.zoo import ZooFolder
from vitarium.core.terminal import Terminal
from vitarium.zoo import Zoo


def export(
    directory: ZooFolder,
    to: Annotated[str, typer.Option(help="The format: `vitarium plugins exporter` lists them.")],
    out: Annotated[
        Path, typer.Option(help="Where to: a new or an empty folder.", readable=UNCHECKED)
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Ids or beginnings of them; ID@3 is the model after epoch 3. "
            "Default: every finished model, after its last epoch.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            metavar="SQL",
            help="Instead: finished models that fulfil a condition, as in `vitarium ls --where`.",
            show_default=False,
        ),
    ] = "",
    settings: Settings = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out models for which the format has no place.")
    ] = False,
) -> None:
    """Write models of a zoo in another format: timm, hugging_face, onnx, safetensors, hub, ...

    Nothing is written unless all of it is.

    Examples:

      vitarium export demo-zoo --to timm --out for-timm d704 3f2a@5

      vitarium export demo-zoo --to onnx --out onnx --where "after > 0.97" --set opset=20

      vitarium export demo-zoo --to hub --out for-the-hub --set license=cc-by-4.0
    """
    from vitarium.formats.export import Skipped
    from vitarium.formats.export import export as run

    skipped: list[Skipped] = []
    with progress_bar("Exporting", transient=True) as progress:
        written = run(
            Zoo.open(directory),
            out,
            exporter=to,
            models=models or None,
            where=where,
            skip=skip,
            progress=progress,
            listener=skipped.append,
            **parsed(settings),
        )
    console = Terminal(stderr=True, soft_wrap=True)
    for event in skipped:
        console.print(f"left out: {event.model.id}: {event.reason}", style="yellow")
    what = "1 file or folder" if len(written) == 1 else f"{len(written)} files and folders"
    done = f"{what} written to {out}" + (f", {len(skipped)} models left out" if skipped else "")
    console.print(done)


def push(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A zoo, or a folder of `export --to hub`.", readable=UNCHECKED
        ),
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="On the hub, e.g. me/my-zoo.")],
    private: Annotated[
        bool, typer.Option("--private", help="Where the repository is made now: for you alone.")
    ] = False,
    license: Annotated[
        str | None,
        typer.Option(
            help="For the card of a zoo that has none yet, as the hub calls it, e.g. cc-by-4.0.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded, and do nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Of --dry-run, as JSON.")] = False,
) -> None:
    """Upload a zoo to the Hugging Face hub as a data set, with a card, tables and figures.

    Stopped or interrupted, the same command goes on. Needs vitarium[hub] and a token of the hub
    (`hf auth login`, or the environment variable HF_TOKEN).

    Examples:

      vitarium push demo-zoo me/demo-zoo --license cc-by-4.0 --dry-run

      vitarium push for-the-hub me/demo-zoo --private
    """
    from vitarium.formats.hub.push import push as run

    files = run(directory, repository, private=private, license=license, dry_run=dry_run)
    if dry_run:
        print_rows(({"file": file.name, "bytes": file.bytes} for file in files), as_json=json)
    what = "would be uploaded" if dry_run else "uploaded"
    total = size(sum(file.bytes for file in files))
    Terminal(stderr=True, soft_wrap=True).print(
        f"{len(files)} files, {total}, {what} to https://huggingface.co/datasets/{repository}",
    )
