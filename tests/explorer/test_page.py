"""The page that is in the package: built from its source, small, and sufficient in itself."""

import gzip
import hashlib
import re
from pathlib import Path

from vitarium.page import BUILT

WEB = Path(__file__).parents[2] / "web"
SOURCES = ("index.html", "package-lock.json", "package.json", "vite.config.ts")
MAX_BYTES = 2_000_000


def test_the_page_is_built_from_its_source():
    paths = [WEB / name for name in SOURCES]
    paths += [path for part in ("public", "src") for path in (WEB / part).rglob("*.*")]
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(WEB).as_posix() for path in paths):
        digest.update(f"{name}\n".encode() + (WEB / name).read_bytes())
    assert (BUILT / "source.sha256").read_text().strip() == digest.hexdigest(), "run `make web`"


def test_the_page_is_small_and_loads_nothing_from_elsewhere():
    files = [path for path in BUILT.rglob("*") if path.is_file()]
    assert {"index.html", "explorer.js", "explorer.css"} <= {path.name for path in files}
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < MAX_BYTES
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", (BUILT / "index.html").read_text())
    assert loaded
    assert all(address.startswith("./") for address in loaded)
    assert "@import" not in (BUILT / "explorer.css").read_text()
    assert "url(http" not in (BUILT / "explorer.css").read_text()
