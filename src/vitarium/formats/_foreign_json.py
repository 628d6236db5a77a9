"""JSON files of other programs: untrusted input, checked as a whole before anything is used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitarium.core import files
from vitarium.core.config import problems_of
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.printable import shortened
from vitarium.formats.weights import check_place, root_of

_MAX_LENGTH = 160  # characters of a complaint
_MAX_NUMBER, _MAX_DEPTH = 2**16, 1024  # of arguments: no width or size, and no depth, is larger

Size = Annotated[int, Field(gt=0, le=2**16)]
"""A width, or a side of an image, in numbers or pixels; no model has a larger one."""
Count = Annotated[int, Field(ge=0, le=1024)]
"""A number of tokens."""
Depth = Annotated[int, Field(gt=0, le=1024)]
"""A number of blocks."""
Rate = Annotated[float, Field(ge=0, lt=1)]
"""A probability of dropout."""
Ratio = Annotated[float, Field(gt=0, le=1024)]
"""A hidden width as a multiple of another one."""
Epsilon = Annotated[float, Field(gt=0, le=1)]
"""What a norm adds to the variance."""

Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e6)]


class ForeignJson(BaseModel):
    """Base of what is used of a JSON file; keys without a field are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises InvalidInput that names the file and the first key that is wrong; UntrustedFile
        where a link leads out of the folder; CorruptFile where it is no JSON."""
        return cls.parse(read_object(file), file)

    @classmethod
    def parse(cls, values: dict[str, Any], file: Path) -> Self:
        """Of a part of a file that was read. Raises InvalidInput."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problem = shortened(str(problems_of(error, cls)[0]), _MAX_LENGTH)
            raise InvalidInput(f"{file}: {problem}") from None


def read_object(file: Path) -> dict[str, Any]:
    """Raises UntrustedFile where a link leads out of the folder, and CorruptFile where it holds no
    JSON object."""
    check_place(file, root_of(file.parent))
    content = files.read_json(file)
    if not isinstance(content, dict):
        raise CorruptFile(file, f"it holds a {type(content).__name__}, not an object with keys")
    return content


def check_arguments(values: Mapping[str, Any], where: str) -> None:
    """Before a model is built of an architecture's settings, which would take hours, or all memory.

    Raises InvalidInput that names the first number which is larger than any model's.
    """
    for key, value in values.items():
        limit = _MAX_DEPTH if key in ("depth", "depths") else _MAX_NUMBER
        if isinstance(value, Mapping):
            check_arguments(value, where)
        elif key != "seed" and (number := _larger(value, limit)) is not None:
            raise InvalidInput(f"{where}: {key}: {number!r:.30} is not at most {limit}")


def _larger(value: Any, limit: int) -> int | float | None:
    """The first number in it that is larger, or none at all."""
    if isinstance(value, list | tuple):
        return next((n for part in value if (n := _larger(part, limit)) is not None), None)
    is_number = isinstance(value, int | float)
    return value if is_number and not abs(value) <= limit else None
