"""The zoo: a folder of models that is opened, listed and loaded from."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, InvalidInput, NotAZoo, UnknownName, UnusablePath
from vitarium.core.filenames import user_path
from vitarium.core.numerals import counted, is_number
from vitarium.core.weight_suffixes import not_in_zoo
from vitarium.zoo._keeping import Keeping
from vitarium.zoo._model_files import model_stamps
from vitarium.zoo._not_a_zoo import not_a_zoo
from vitarium.zoo._query_limits import TIMEOUT
from vitarium.zoo.model import Model, ModelName, names_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from vitarium.blueprint import Spec
    from vitarium.data.loader import SplitName
    from vitarium.data.model_images import ModelImages
    from vitarium.zoo.checkpoint import Checkpoint
    from vitarium.zoo.model_folder import ModelFolder

_ID = re.compile("[0-9a-f]{12}")
VERSIONS = (1, 2)
"""Of the format, that can be read; what is added to a zoo is of the newest."""
FORMAT = "vitarium zoo"
MARKS = tuple(files.json_text({"format": FORMAT, "version": n}) for n in VERSIONS)
"""What zoo.json may hold."""


class Zoo(Keeping):
    """A population of models in a folder.

        zoo = Zoo.open("demo-zoo")
        zoo.models()                      # a table: one row per model, every factor a column
        zoo["3f2a"]                       # one model, see `Model`
        model = zoo.load("3f2a", epoch=5) # an nn.Module; -1 is the last epoch

    Models are named by their id or by any unambiguous beginning of it; where weights are meant,
    `3f2a@5` is the model after epoch 5.

    `open` and `create` check the folder; the constructor takes a path as it is.
    """

    def __init__(self, path: Path) -> None:
        if not isinstance(path, Path):
            raise TypeError(f"write Zoo.open({path!r}), which checks the folder")
        self.path = path

    @classmethod
    def open(cls, path: "Zoo | str | Path") -> Self:
        """Raises NotAZoo for a folder that is none, or of a newer format, and NotReadable."""
        if isinstance(path, Zoo):
            return path if isinstance(path, cls) else cls(path.path)
        folder = user_path(path)
        mark = folder / "zoo.json"
        try:
            content = files.read(mark)
        except (FileNotFoundError, UnusablePath):
            raise not_a_zoo(folder) from None
        if content not in MARKS:
            what = f"{mark} says {files.read_json(mark)}; this version of vitarium reads zoos of"
            raise NotAZoo(f"{what} the versions {' and '.join(map(str, VERSIONS))}")
        return cls(folder)

    @classmethod
    def create(cls, path: "Zoo | str | Path") -> Self:
        """Open a zoo, or make one of a new or empty folder; NotAZoo for any other.

        Raises NotWritable and DiskFull, too.
        """
        folder = path.path if isinstance(path, Zoo) else user_path(path)
        if not files.exists(folder / "zoo.json"):
            empty = folder.is_dir() and all(map(files.is_leftover, files.listed(folder)))
            if folder.exists() and not empty:
                fault = f"{folder} is neither a zoo nor an empty folder; choose another place"
                raise NotAZoo(fault)
            files.write(folder / "zoo.json", MARKS[-1])
        return cls.open(folder).upgraded()

    def upgraded(self) -> Self:
        """Say that newer files may follow, so that no older version of vitarium misreads them."""
        mark = self.path / "zoo.json"
        if files.read(mark) != MARKS[-1]:
            files.write(mark, MARKS[-1])
        return self

    def __repr__(self) -> str:
        return f"Zoo({str(self.path)!r}, {counted(len(self), 'model')})"

    def _repr_html_(self) -> str:
        """For notebooks: a row per stage."""
        from vitarium.zoo._summary import zoo_html

        return zoo_html(self.path)

    def __len__(self) -> int:
        return len(self.ids())

    def __getitem__(self, model: ModelName) -> Model:
        """The model whose id begins with `model`; raises as `find` does."""
        if not isinstance(model, ModelName):
            raise TypeError(f"a zoo's models are named by their ids, not by {model!r}")
        return Model(self, self.find(model))

    def __iter__(self) -> Iterator[Model]:
        """Every model, in order of id."""
        return (Model(self, id) for id in self.ids())

    def __contains__(self, model: object) -> bool:
        """Whether `zoo[model]` gives a model: not for a beginning of several ids."""
        if not isinstance(model, ModelName):
            return False
        try:
            self.find(model)
        except InvalidInput:
            return False
        return True

    def ids(self) -> list[str]:
        """Ids of all models, finished or not, in alphabetical order."""
        return list(model_stamps(self.path))

    def find(self, model: ModelName) -> str:
        """The id that begins with `model`. Raises UnknownName, InvalidInput if several do."""
        ((name, at, _),) = (name.partition("@") for name in names_of(model))
        if _ID.fullmatch(name) and files.exists(self.path / "models" / name / "model.json"):
            matches = [name]  # without a look at all the others
        else:
            ids = self.ids()
            matches = [id for id in ids if name and id.startswith(name)]
        if not matches:
            raise not_in_zoo(name, self.path, ids)
        if len(matches) > 1:
            fault = f"'{name}' is the beginning of {', '.join(matches)}; give more digits"
            raise InvalidInput(fault)
        if at:
            raise InvalidInput(f"'{model}' is a checkpoint; a model is written without its epoch")
        return matches[0]

    def at(self, model: ModelName) -> CheckpointRef:
        """The checkpoint that `3f2a@5` names; without an epoch, the last that has weights.

        Raises UnknownName, and InvalidInput for an epoch that is none or is not kept.
        """
        id, epoch = self._id_and_epoch(model, -1)
        return CheckpointRef(id, self.folder(id).checkpoint(epoch)[0])

    def _id_and_epoch(self, model: ModelName, epoch: int) -> tuple[str, int]:
        ((name, _, number),) = (name.partition("@") for name in names_of(model))
        if not number:
            return self.find(name), epoch
        if not is_number(number):
            raise InvalidInput(f"'{model}': write an epoch as a number, e.g. {name}@3")
        if epoch not in (-1, int(number)):
            raise InvalidInput(f"'{model}' names an epoch; leave out epoch {epoch}")
        return self.find(name), int(number)

    def folder(self, model: str) -> "ModelFolder":
        """Where a model is kept, or will be. UnknownName for what is no id: a path elsewhere."""
        from vitarium.zoo.model_folder import ModelFolder  # imports what recipes are made of

        if not _ID.fullmatch(model):
            raise UnknownName("model", model, self.ids())
        return ModelFolder(self.path / "models" / model)

    def spec(self, model: ModelName) -> "Spec":
        """What the model is: its recipe (or what is known of an imported model), stage, parent."""
        return self.folder(self.find(model)).spec()

    def children(self, model: ModelName) -> list[str]:
        """Ids of the models that started from one, in order. Raises UnknownName, CorruptFile."""
        from vitarium.zoo.query import Database

        sql = f"SELECT id FROM models WHERE parent = '{self.find(model)}' ORDER BY id"
        return [row[0] for row in Database(self.path, timeout=None).rows(sql)[1]]

    def models(
        self, *, where: str = "", varying: bool = False, measured: bool = True
    ) -> "pd.DataFrame":
        """One row per model in order of id, every generating factor a column (`optimizer.lr`).

        Beside them: id, stage, parent, parent_epoch, operator and ingredients of what was merged,
        status (training, finished, diverged), last_epoch, the last epoch's metrics (accuracies are
        fractions), seconds of training, and what was measured after it, a column per measure.

        Args:
            where: only models that fulfill an SQL condition, e.g. "lr < 0.01 AND seed IN (1, 2)",
                see `vitarium.zoo.listing.listing`.
            varying: only the id and the columns in which these models differ.
            measured: with measured numbers: on test images, where the measure needs images.

        Raises CorruptFile; for a condition as `query` does.
        """
        from vitarium.zoo._frame import models_frame

        return models_frame(self.path, where=where, varying=varying, measured=measured)

    def query(self, sql: str, *, timeout: float | None = TIMEOUT) -> "pd.DataFrame":
        """What a SELECT gives over the tables `models`, `epochs` and `records`, by DuckDB.

            zoo.query("SELECT stage, max(test_accuracy) FROM models GROUP BY stage")

        A name with dots, such as optimizer.lr, may stand with or without its double quotes. The
        SQL sees a copy of the tables and nothing else: no files, no extensions.

        Args:
            timeout: seconds that it may take; 0 or None: no limit.

        Raises InvalidInput with DuckDB's words, UnknownName for a table or column that there is
        not, QueryTimeout, QueryTooLarge for a query that needs more than half of the machine's
        memory or an answer that takes more than a quarter, CorruptFile where a model's own files
        are damaged.
        """
        from vitarium.zoo.query import Database

        return Database(self.path, timeout=timeout).frame(sql)

    def records(self, measure: str = "") -> "pd.DataFrame":
        """What was measured: one row per number, of one measure or of all.

        Columns: model, epoch, other and other_epoch (the second of a pair), measure, settings
        (JSON), part, value, unit, data, split, num_images, trained_on; see `vitarium.measure`.
        Raises CorruptFile.
        """
        from vitarium.zoo.query import Database

        table = Database(self.path, timeout=None).frame("SELECT * FROM records ORDER BY ALL")
        return table[table["measure"] == measure] if measure else table

    def epochs(self, model: ModelName) -> "pd.DataFrame":
        """One row per finished epoch of a model: epoch, kept (its weights are), and metrics."""
        return Model(self, self.find(model)).metrics

    def state_dict(
        self, model: ModelName, epoch: int = -1, *, plain: bool = True
    ) -> "dict[str, Tensor]":
        """The weights after an epoch (-1: the last kept), on the CPU. Epoch 0 of a model that was
        grown is before training; of others, see `Model.initial_epoch`.

        Args:
            plain: changes in factors (LoRA) are merged into the weights; else all is as the model
                was trained: frozen weights, and factors by `MODULE.adaptation.FACTOR`.

        Raises UnknownName, InvalidInput for an epoch that is not kept, and CorruptFile.
        """
        return self.checkpoint(model, epoch, plain=plain).state_dict()

    def checkpoint(self, model: ModelName, epoch: int = -1, *, plain: bool = True) -> "Checkpoint":
        """The weights after an epoch, each read when it is asked for; see `state_dict`."""
        id, epoch = self._id_and_epoch(model, epoch)
        folder = self.folder(id)
        return folder.open_plain(epoch) if plain else folder.open(epoch)

    def tensor(
        self, model: ModelName, epoch: int, name: str, rows: tuple[int, int] | None = None
    ) -> "Tensor":
        """One tensor of a checkpoint, or its rows [start, stop) as [stop - start, ...].

        Only what is asked for is read (in runs of 1 MiB). Raises as `checkpoint` does, UnknownName
        for an unknown tensor and InvalidInput for rows that are not there.
        """
        checkpoint = self.checkpoint(model, epoch)
        return checkpoint[name] if rows is None else checkpoint.rows(name, *rows)

    def load(self, model: ModelName, epoch: int = -1, *, plain: bool = True) -> "nn.Module":
        """The model after an epoch, in eval mode on the CPU; see `state_dict`."""
        id, epoch = self._id_and_epoch(model, epoch)
        folder = self.folder(id)
        weights = self.checkpoint(id, epoch, plain=plain).state_dict()
        spec, num_outputs = folder.spec(), folder.about().num_outputs
        # what an operator made has plain weights, whatever adapted its ingredients
        built = spec.origin.build(num_outputs, plain=plain or spec.operator is not None)
        try:
            built.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise CorruptFile(folder.path, f"weights do not fit the model: {error}") from None
        return built.eval()

    def companions(self, model: ModelName) -> "nn.Module":
        """What the objective brought beside a model (a decoder, a momentum teacher), after its last
        epoch: a module in eval mode on the CPU; of models that are trained with `keep_companions`.

        Raises UnknownName, InvalidInput where there are none, and CorruptFile.
        """
        from vitarium.zoo.kept_companions import load_companions

        return load_companions(self.folder(self.find(model)))

    def data(self, model: ModelName, split: "SplitName" = "test", **options: Any) -> "ModelImages":
        """The images that a model is scored on, as it sees them; see `Model.data`."""
        return Model(self, self._id_and_epoch(model, -1)[0]).data(split, **options)
