"""What a zoo's owner does to all of it or to a choice: pack, remove, annotate, copy."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from vitarium.core import files
from vitarium.core.filenames import file_name
from vitarium.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from vitarium.blueprint import Blueprint
    from vitarium.zoo.conversion import Conversion
    from vitarium.zoo.model import ModelNames
    from vitarium.zoo.removal import Removal


class Keeping:
    """The methods of a `Zoo` that change how it is kept; every one holds the zoo's lock."""

    path: Path

    def pack(self, *, progress: Progress = SILENT) -> "Conversion":
        """Make the zoo small: keep every checkpoint packed, as `grow` does.

        Bit-exact, in place; when it is interrupted nothing is lost, and running it again goes on.
        Raises ZooInUse, NotWritable, DiskFull and CorruptFile.
        """
        from vitarium.zoo.conversion import convert

        return convert(self.path, "packed", progress)

    def unpack(self, *, progress: Progress = SILENT) -> "Conversion":
        """Make the zoo fast: keep every checkpoint plain, to be mapped into memory; see `pack`."""
        from vitarium.zoo.conversion import convert

        return convert(self.path, "plain", progress)

    def remove(
        self,
        models: "ModelNames | None" = None,
        *,
        where: str = "",
        with_dependents: bool = False,
        keep_dependents: bool = False,
        dry_run: bool = False,
        progress: Progress = SILENT,
    ) -> "Removal":
        """Remove models, or the weights after an epoch (`ID@EPOCH`).

        See `vitarium.zoo.removal.remove`, also for what it raises.
        """
        from vitarium.zoo.removal import remove

        return remove(
            self.path,
            models,
            where=where,
            with_dependents=with_dependents,
            keep_dependents=keep_dependents,
            dry_run=dry_run,
            progress=progress,
        )

    def archive(
        self,
        models: "ModelNames | None" = None,
        *,
        out: str | Path,
        where: str = "",
        ancestors: bool = True,
        progress: Progress = SILENT,
    ) -> Path:
        """Copy models as a zoo of its own: a folder, or a file such as `part.tar`.

        See `vitarium.zoo.combine.archive`, also for what it raises.
        """
        from vitarium.zoo.combine import archive

        return archive(
            self.path, models, out=out, where=where, ancestors=ancestors, progress=progress
        )

    def tag(self, models: "ModelNames | None", tag: str, *, where: str = "") -> list[str]:
        """Add a tag to models; see `vitarium.zoo.annotations.tag`."""
        from vitarium.zoo.annotations import tag as add

        return add(self.path, models, tag, where=where)

    def untag(self, models: "ModelNames | None", tag: str, *, where: str = "") -> list[str]:
        """Remove a tag from models, or from all; see `vitarium.zoo.annotations.tag`."""
        from vitarium.zoo.annotations import untag

        return untag(self.path, models, tag, where=where)

    def note(self, models: "ModelNames | None", note: str, *, where: str = "") -> list[str]:
        """Write a note beside models; see `vitarium.zoo.annotations.note`."""
        from vitarium.zoo.annotations import note as write

        return write(self.path, models, note, where=where)

    def rename_stage(self, old: str, new: str) -> None:
        """Show a stage under another name; see `vitarium.zoo.annotations.rename_stage`."""
        from vitarium.zoo.annotations import rename_stage

        rename_stage(self.path, old, new)

    def reindex(self) -> int:
        """Rebuild the index from the models' own files; returns the number of models."""
        from vitarium.zoo import _index as index

        index.remove(self.path)
        return len(index.rows(self.path))

    def add_blueprint(self, blueprint: "Blueprint") -> None:
        """Keep the text of a blueprint that is grown here, under its name and content."""
        text = blueprint.text.encode()
        if not text:
            return
        digest = hashlib.sha256(text).hexdigest()[:8]
        file = self.path / "blueprints" / f"{file_name(blueprint.name)}-{digest}.yaml"
        if not files.exists(file):
            files.write(file, text, root=self.path)
