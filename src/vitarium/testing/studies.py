"""The contract of studies (`vitarium.studies.base`), checked."""

import tempfile
from pathlib import Path

from vitarium.testing._rules import Contract
from vitarium.testing._tiny_zoo import tiny_zoo
from vitarium.zoo import Zoo


def check_study(name: str, zoo: Zoo | str | Path | None = None) -> None:
    """Check a study by its contract: it is described, gives tables, and the same page each time.

    Args:
        name: of a registered study. It runs with its settings `tiny` on 40 images.
        zoo: a copy of it is studied. None: a zoo of tiny models on scikit-learn's digits, grown
            once per process in a few seconds.
    """
    from vitarium.studies._runner.study import study

    rule = Contract("study", name)
    settings = {"num_images": 40, **rule.facts["tiny"]}
    with tempfile.TemporaryDirectory() as folder, tiny_zoo(instead=zoo) as zoo:
        if prepare := rule.facts["prepare"]:
            prepare(zoo)
        models = set(zoo.ids())
        page, again = Path(folder) / "page.html", Path(folder) / "again.html"
        exports = {key: Path(folder) / key for key in rule.facts["exports"]}
        result = study(zoo, name, out=page, exports=exports, **settings)
        rule(result.tables, "it gives a table at least")
        for title, frame in result.tables.items():
            rule(title, "each of its tables has a title")
            rule(len(frame.columns), f"its table '{title}' has columns")
        for key, path in exports.items():
            rule(path.is_file(), f"it writes what it exports as '{key}'")
        rule(set(zoo.ids()) == models, "it adds no model to the zoo")
        study(zoo, name, out=again, **settings)
        same = page.read_bytes() == again.read_bytes()
        rule(same, "it gives the same page when it runs again")
