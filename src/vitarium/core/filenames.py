"""Turn untrusted names into file names: the only way in which a name becomes part of a path.
`user_path` reads the paths that people write.

A name may be `../../x`, empty, ten thousand characters long, or reserved by an operating system.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 100
"""Length of a file name in UTF-8. Common file systems allow 255; the rest is for suffixes."""
_PUNCTUATION = set(" -_.,+=@()")
"""Allowed beside letters, marks and digits of any script. `~` is not: it marks names that were
changed, so that they cannot collide with unchanged ones."""
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)
"""Device names of Windows, which are reserved with any extension."""


def file_name(text: str) -> str:
    """A text as the name of a file or folder: 1 to `MAX_BYTES` bytes of UTF-8.

    An ordinary text is returned unchanged. In any other, characters that are not allowed are
    replaced, and `~` and twelve digits of its SHA-256 are appended, so that names stay different.
    It has no separator, begins with no dot or dash, and ends with no dot or space.
    """
    name = _sanitized(text)
    return name if name == text and len(name.encode()) <= MAX_BYTES else _hashed(text)


def file_names(texts: Iterable[str]) -> dict[str, str]:
    """Map texts to file names that are distinct on case-insensitive file systems, too."""
    names = {text: file_name(text) for text in texts}
    count = Counter(map(collision_key, names.values()))
    return {
        text: name if count[collision_key(name)] == 1 else _hashed(text)
        for text, name in names.items()
    }


def collision_key(name: str) -> str:
    """Equal for names that some file system treats as one: by case, or by Unicode normalization."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def user_path(path: str | Path) -> Path:
    """A path as people write it: `~` is their home. A folder may be called `~x`, too."""
    with suppress(RuntimeError):  # there is no such user
        return Path(path).expanduser()
    return Path(path)


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    name, max_bytes = _sanitized(text), MAX_BYTES - 1 - len(digest)
    encoded, half = name.encode(), max_bytes // 2 - 1
    if len(encoded) > max_bytes:  # its beginning and its end
        start, end = encoded[:half], encoded[-half:]
        name = f"{start.decode(errors='ignore')}__{end.decode(errors='ignore')}"
    return f"{name}~{digest}"


def _sanitized(text: str) -> str:
    """The text with `_` for characters that are not allowed, and before what may not come first."""
    allowed = (c in _PUNCTUATION or unicodedata.category(c)[0] in "LMN" for c in text)
    name = "".join(c if ok else "_" for c, ok in zip(text, allowed, strict=True)).rstrip(" .")
    if not name or name[0] in " .-" or _RESERVED.fullmatch(name):
        return f"_{name}"
    return name
