"""Stage names that blueprints, `merge` and `compress` accept; imported zoos may have any."""

from vitarium.core.errors import InvalidInput
from vitarium.core.printable import is_hidden, printable

MAX_LENGTH = 100
_QUOTED_LENGTH = 40


def check_stage_name(name: str) -> str:
    """Return the name. Raises InvalidInput if it is blank, too long or has hidden characters."""
    quoted = printable(name[:_QUOTED_LENGTH], newline="\\n")
    quoted += "…" if len(name) > _QUOTED_LENGTH else ""
    if not name.strip():
        raise InvalidInput(f"'{quoted}' is no name of a stage; give it a letter")
    if len(name) > MAX_LENGTH:
        raise InvalidInput(
            f"the name of stage '{quoted}' has {len(name):,} characters; {MAX_LENGTH} are allowed"
        )
    if hidden := next((char for char in name if is_hidden(char)), None):
        raise InvalidInput(
            f"the name of stage '{quoted}' contains the invisible character U+{ord(hidden):04X}; "
            "leave it out"
        )
    return name
