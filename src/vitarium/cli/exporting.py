"""`vitarium export` and `vitarium push`: a zoo for other programs, and for the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli._options import argument, option, path_argument, path_option
from vitarium.cli._progress import AGAIN, progress_bar, resumable
from vitarium.cli._tables import print_rows
from vitarium.core.numerals import counted, size
from vitarium.core.reasons import by_reason
from vitarium.core.registry import get
from vitarium.core.terminal import print_note
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    from vitarium.formats.base import Skipped


def export(
    directory: options.ZooFolder,
    exporter: Annotated[
        str,
        option(
            "--exporter",
            "--to",
            "The format; `vitarium plugins exporters` lists all.",
            metavar="FORMAT",
            autocompletion=completion.plugins("exporter"),
        ),
    ],
    out: Annotated[Path, path_option("Output folder; must be new or empty.")],
    models: options.Models = None,
    where: options.Where = "",
    settings: options.Settings = None,
    skip: Annotated[
        bool, option("--skip", "Leave out models that the format cannot hold.")
    ] = False,
) -> None:
    """Write models of a zoo in another format: timm, hugging_face, onnx, safetensors, hub, ...

    Without models and a condition, every finished model is exported, after its last epoch. If
    anything goes wrong, nothing is written.

    Examples:

      vitarium export demo-zoo --exporter timm --out for-timm d704 3f2a@5

      vitarium export demo-zoo --exporter onnx --out onnx --where "after > 0.97" --set opset=20

      vitarium export demo-zoo --exporter hub --out for-the-hub --set license=cc-by-4.0
    """
    skipped: list[Skipped] = []
    stopped = resumable(f"Nothing was written to {out}", AGAIN)
    with stopped, progress_bar("exporting", transient=True) as progress:
        from vitarium.formats.export import export as run

        written = run(
            Zoo.open(directory),
            exporter,
            out=out,
            models=models or None,
            where=where,
            skip=skip,
            progress=progress,
            listener=skipped.append,
            **options.parsed(settings, of=run),
        )
    for line in by_reason((event.checkpoint.model, event.reason) for event in skipped):
        print_note(f"left out: {line}", style="yellow")
    what = "1 file or folder" if len(written) == 1 else f"{len(written)} files and folders"
    left_out = f", {counted(len(skipped), 'model')} left out" if skipped else ""
    print_note(f"{what} written to {out}{left_out}")
    if written and (opened_by := get("exporter", exporter).facts["opened_by"]):
        print_note(f"open with: {opened_by.format(path=written[0], out=out)}")


def push(
    directory: Annotated[
        Path, path_argument("A zoo, or a folder of `export --exporter hub`.", metavar="DIR")
    ],
    repository: Annotated[str, argument("On the hub, e.g. me/my-zoo.", metavar="REPO")],
    private: Annotated[
        bool, option("--private", "If the repository is new: visible to you alone.")
    ] = False,
    license: Annotated[
        str | None, option("License for the new card, as the hub names it, e.g. cc-by-4.0.")
    ] = None,
    dry_run: options.DryRun = False,
    json: options.DryRunJson = False,
    csv: options.DryRunCsv = False,
) -> None:
    """Upload a zoo to the Hugging Face hub as a data set, with a card, tables and figures.

    If it is interrupted, run the same command to resume. Needs the extra `hub`, and a token
    (`hf auth login`, or the environment variable HF_TOKEN).

    Examples:

      vitarium push demo-zoo me/demo-zoo --license cc-by-4.0 --dry-run

      vitarium push for-the-hub me/demo-zoo --private
    """
    with resumable("Files that were uploaded stay on the hub"):
        from vitarium.formats.hub.push import push as run

        files = run(directory, repository, private=private, license=license, dry_run=dry_run)
    if dry_run:
        rows = ({"file": file.name, "bytes": file.bytes} for file in files)
        print_rows(rows, as_json=json, as_csv=csv)
    what = "would be uploaded" if dry_run else "uploaded"
    total = size(sum(file.bytes for file in files))
    address = f"https://huggingface.co/datasets/{repository}"
    print_note(f"{counted(len(files), 'file')}, {total}, {what} to {address}")
