"""Names of anyone as names of files: the one way in which a text becomes a part of a path.

A name in a blueprint, a table or a foreign zoo may be `../../x`, empty, ten thousand letters long,
or what some system keeps for itself. An ordinary one stays as it is.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

MOST_BYTES = 100
"""Of a name in UTF-8: with a suffix, and what files are called while they are written, it fits into
the 255 of the usual file systems."""
_ALLOWED = set(" -_.,+=@()")
"""Beside letters, marks and digits of any language. `~` is not: it stands where a text was changed,
so that no other text is called like the result."""
_KEPT = {"L", "M", "N"}
"""Unicode's categories of these."""
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)
"""What Windows takes for a device, whatever follows its dot."""


def file_name(text: str) -> str:
    """The text as the name of a file or folder, at most `MOST_BYTES` long and never empty.

    An ordinary text is its own name. Of any other the letters that may stay, then `~` and twelve
    digits of its SHA-256: different texts have different names. It has no separator, does not begin
    with a dot or a dash, and does not end with a dot or a space.
    """
    name = _readable(text)
    return name if name == text and len(name.encode()) <= MOST_BYTES else _marked(text)


def file_names(texts: Iterable[str]) -> dict[str, str]:
    """Each text -> its name in one folder, where the case of letters may count or not."""
    names = {text: file_name(text) for text in texts}
    count = Counter(map(alike, names.values()))
    return {
        text: name if count[alike(name)] == 1 else _marked(text) for text, name in names.items()
    }


def alike(name: str) -> str:
    """Equal for names that some file systems take for one: in case, and in how accents are kept."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _marked(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{_short(_readable(text), MOST_BYTES - 1 - len(digest))}~{digest}"


def _readable(text: str) -> str:
    """With `_` for what may not stand in a file's name, and before what may not begin one."""
    kept = "".join(
        letter if letter in _ALLOWED or unicodedata.category(letter)[0] in _KEPT else "_"
        for letter in text
    )
    kept = kept.rstrip(" .")
    if not kept or kept[0] in " .-" or _RESERVED.fullmatch(kept):
        return f"_{kept}"
    return kept


def _short(name: str, most: int) -> str:
    """Both ends of a name that is too long, in at most so many bytes."""
    if len(name.encode()) <= most:
        return name
    half = most // 2 - 1
    first = name.encode()[:half].decode(errors="ignore")
    last = name.encode()[-half:].decode(errors="ignore")
    return f"{first}__{last}"
