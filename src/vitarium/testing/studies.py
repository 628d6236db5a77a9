"""The contract of studies (`vitarium.studies.base`), checked."""

import tempfile
from pathlib import Path

from vitarium.core.registry import get
from vitarium.testing.measures import tiny_zoo
from vitarium.zoo import Zoo


def check_study(name: str, zoo: Zoo | None = None) -> None:
    """Check a study by its contract: it is described, gives tables, and the same page each time.

    Args:
        name: of a registered study. It runs with its settings `tiny` on 40 images.
        zoo: what it studies; values that it measures are added to the zoo's records. None: a zoo
            of tiny models on scikit-learn's digits, grown once per process in a few seconds.

    Raises AssertionError that names the study and the rule that it breaks.
    """
    from vitarium.studies._runner.study import study

    plugin = get("study", name)
    line = plugin.summary
    _require(name, 10 < len(line) <= 100, "its docstring begins with a line of 10 to 100 letters")
    _require(name, line.endswith("."), "the first line of its docstring is a sentence")
    for setting, field in plugin.config.model_fields.items():
        _require(name, bool(field.description), f"its setting '{setting}' has a docstring")
    zoo = zoo or tiny_zoo()
    models, settings = set(zoo.ids()), dict(plugin.facts["tiny"])
    with tempfile.TemporaryDirectory() as folder:
        page, again = Path(folder) / "page.html", Path(folder) / "again.html"
        exports = {key: Path(folder) / key for key in plugin.facts["exports"]}
        result = study(zoo, name, out=page, exports=exports, num_images=40, **settings)
        _require(name, len(result.tables) > 0, "it gives a table at least")
        for title, frame in result.tables.items():
            _require(name, bool(title), "each of its tables has a title")
            _require(name, len(frame.columns) > 0, f"its table '{title}' has columns")
        for key, path in exports.items():
            _require(name, path.is_file(), f"it writes what it exports as '{key}'")
        _require(name, set(zoo.ids()) == models, "it adds no model to the zoo")
        study(zoo, name, out=again, num_images=40, **settings)
        same = page.read_bytes() == again.read_bytes()
        _require(name, same, "it gives the same page when it runs again")


def _require(name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(f"study '{name}' breaks the contract: {rule}")
