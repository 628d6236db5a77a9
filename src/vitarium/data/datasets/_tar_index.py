"""The samples of a tar file: where its images lie, and of which classes they are.

Nothing is unpacked: no name of a member ever becomes a path.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from vitarium.core.errors import InvalidData
from vitarium.core.printable import brief, printable

_BLOCK = 512  # bytes, of which tar files are made
_MAX_CLASS_BYTES = 1 << 20
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""The key of a sample and what its member is: a name is parted at its first dot."""
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"(\xb5/\xfd": "unzstd",
}
"""What a compressed file begins with -> the command that unpacks it."""
_KINDS = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class Members(NamedTuple):
    """Which members of a sample are read, and how."""

    image: str | None
    """Extension of the image; None: the only one of `extensions` that the sample has."""
    extensions: tuple[str, ...]
    label: str
    """Extension of the member that holds the class."""
    key: str | None
    """Where that member is JSON: the key of the class in it."""
    names: tuple[str, ...]
    """Of the classes; empty where they are not known."""


class IndexedImage(NamedTuple):
    """Where an image lies in its tar file, in bytes, and its class."""

    header: int
    offset: int
    size: int
    label: int


@dataclass
class _Sample:
    key: str
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)


def indexed_images(shard: Path, members: Members) -> list[IndexedImage]:
    """The images of a tar file, in order, in one pass over its headers.

    Raises InvalidData that names the shard and the member: of compressed, damaged and shortened
    files, links and devices, absolute paths, samples without image or class, or that come twice.
    """
    with shard.open("rb") as file:
        _check_uncompressed(file, shard)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                images = [
                    _indexed(sample, archive, shard, members) for sample in _samples(archive, shard)
                ]
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidData(f"{shard} is damaged, or cut short: {error}") from None
    if not images:
        raise InvalidData(f"{shard} has no samples; remove it, or name other shards")
    return images


def member_at(shard: Path, header: int) -> str:
    """The name of the member whose header begins there."""
    with shard.open("rb") as file:
        file.seek(header)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            member = archive.next()
            return printable(member.name) if member else "a member"


def _samples(archive: tarfile.TarFile, shard: Path) -> Iterator[_Sample]:
    """Members that follow each other and have one key."""
    sample: _Sample | None = None
    keys, end, file_size = set(), 0, shard.stat().st_size
    for member in archive:
        # else it remembers all of them
        archive.members = []  # type: ignore[attr-defined]
        name = _checked_name(member, shard)
        if member.offset < end or member.size < 0:  # of older Pythons, tarfile would go in circles
            raise InvalidData(f"{shard}: the size of the member {printable(name)} is negative")
        end = member.offset_data + member.size
        if end > file_size:
            raise InvalidData(f"{shard} is cut short in its member {printable(name)}")
        parts = None if member.isdir() else _KEY.fullmatch(name)
        if parts is None or name.rpartition("/")[2].startswith("."):
            continue
        key, extension = parts[1], parts[2].lower()
        if sample is None or key != sample.key:
            if sample:
                yield sample
            if key in keys:
                twice = f"the sample '{printable(key)}' comes twice"
                raise InvalidData(f"{shard}: {twice}; its members have to follow each other")
            keys.add(key)
            sample = _Sample(key)
        if extension in sample.members:
            raise InvalidData(f"{shard} has two members {printable(name)}")
        sample.members[extension] = member
    _check_end(archive, shard)  # before a sample that is not complete gets the blame
    if sample:
        yield sample


def _checked_name(member: tarfile.TarInfo, shard: Path) -> str:
    name = member.name.removeprefix("./")
    if name.startswith("/") or ".." in name.split("/"):
        fault = f"the member {printable(name)} leads out of the archive"
        raise InvalidData(f"{shard}: {fault}; shards hold relative paths")
    if not member.isdir() and (not member.isreg() or member.issparse()):
        kind = _KINDS.get(tarfile.GNUTYPE_SPARSE if member.issparse() else member.type, "no file")
        fault = f"the member {printable(name)} is {kind}"
        raise InvalidData(f"{shard}: {fault}; shards hold plain files")
    return name


def _indexed(
    sample: _Sample, archive: tarfile.TarFile, shard: Path, members: Members
) -> IndexedImage:
    wanted = (members.image,) if members.image else members.extensions
    images = [extension for extension in sample.members if extension in wanted]
    has = f"'{printable(sample.key)}' (with {', '.join(map(printable, sample.members))})"
    if len(images) != 1:
        fault = f"{'several images' if images else 'no image'} in the sample {has}"
        raise InvalidData(f"{shard}: {fault}; name its extension with the setting image_member")
    if members.label not in sample.members:
        fault = f"no class, '{members.label}', in the sample {has}"
        raise InvalidData(f"{shard}: {fault}; name its extension with the setting class_member")
    image = sample.members[images[0]]
    label = _label(archive, sample.members[members.label], shard, members)
    return IndexedImage(image.offset, image.offset_data, image.size, label)


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path, members: Members) -> int:
    where = f"{shard}: {printable(member.name)}"
    content = archive.extractfile(member)
    if content is None or member.size > _MAX_CLASS_BYTES:
        raise InvalidData(f"{where} is too large to be a class")
    text = content.read().decode(errors="surrogateescape")
    value = text.strip() if members.key is None else _json_value(text, members.key, where)
    if type(value) is str:
        number = int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None
        if number is None and value in members.names:
            number = members.names.index(value)
    else:
        number = value if type(value) is int else None
    if number is None or not 0 <= number < (len(members.names) or 2**31):
        raise InvalidData(f"{where} holds {brief(value)}, which is {_expected(members)}")
    return number


def _json_value(text: str, key: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{where} is not valid JSON ({error})") from None
    if not isinstance(value, dict) or key not in value:
        raise InvalidData(f"{where} has no key '{key}'; name it with the setting class_key")
    return value[key]


def _expected(members: Members) -> str:
    if members.names:
        last = len(members.names) - 1
        return f"neither a number from 0 to {last} nor one of the names in class_names"
    return "no number of a class; for names of classes, list them in a file: class_names"


def _check_uncompressed(file: IO[bytes], shard: Path) -> None:
    start = file.read(8)
    for magic, command in _COMPRESSED.items():
        if start.startswith(magic):
            why = "is compressed, and images are read from it at random"
            raise InvalidData(f"{shard} {why}; unpack it: {command} '{printable(str(shard))}'")
    file.seek(0)


def _check_end(archive: tarfile.TarFile, shard: Path) -> None:
    """A tar file ends in blocks of zeros; Python's tarfile takes damage for the end."""
    file, end = archive.fileobj, archive.offset
    assert file is not None
    file.seek(end)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise InvalidData(f"{shard} is cut short: it has no end mark; copy it again")
    if any(block):
        raise InvalidData(f"{shard} is damaged at byte {end}; copy it again")
    while rest := file.read(1 << 20):
        if any(rest):
            why = "goes on behind its end mark, as tar files do that were put together by cat"
            raise InvalidData(f"{shard} {why}; name them one by one")
