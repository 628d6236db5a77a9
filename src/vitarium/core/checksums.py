"""JSON objects that end in a checksum of themselves, and so prove that no byte has changed."""

import json
from collections.abc import Callable
from typing import Any

import xxhash

from vitarium.core.printable import encodable, escaped_json

_SEAL_BYTES = len(', "xxh3": "0123456789abcdef"}\n')


def checksum(content: Any) -> str:
    """XXH3 of 64 bits, as 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(content)


def utf8(text: str) -> bytes:
    """Any text, also with the name of a file that is no UTF-8: its bytes are written `\\udcff`."""
    return text.encode(errors="backslashreplace")


def parsed_json(text: bytes) -> Any:
    r"""Parse JSON; lone surrogates become text such as `\ud83d`, see `encodable`.

    Raises ValueError and RecursionError.
    """
    value = json.loads(text)
    has_surrogates = b"\xed" in text or b"\\ud" in text or b"\\uD" in text
    return encodable(value) if has_surrogates else value


def with_checksum(value: dict[str, Any], *, indent: int | None = None, after: bytes = b"") -> str:
    """JSON text of an object that ends in `, "xxh3": "<XXH3-64 of all before this comma>"}`.

    Args:
        after: bytes that the checksum is to cover too, as if they stood before the text.
    """
    text = escaped_json(json.dumps(value, indent=indent, ensure_ascii=False))
    body = text.removesuffix("}").rstrip("\n")
    return body + _seal(after + utf8(body))


def verify_checksum(
    text: bytes, format_1: Callable[[dict[str, Any]], bool] = lambda value: False
) -> dict[str, Any]:
    """The object of a sealed text, or of one of format 1; see `read_sealed`.

    Raises ValueError if any byte of a sealed text has changed.
    """
    try:
        value = parsed_json(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    if value.pop("xxh3", None) is None:
        if not format_1(value):
            raise ValueError("it does not end in its checksum")
        return value
    body = text[:-_SEAL_BYTES]
    if text[-_SEAL_BYTES:] != _seal(body).encode():
        raise ValueError("its checksum is not that of its content")
    return value


def _seal(body: bytes) -> str:
    return f', "xxh3": "{checksum(body)}"}}\n'
