"""What a stage may be called by those who write blueprints, merge and compress.

A zoo of someone else, or a table, may hold any name; it is read all the same.
"""

from vitarium.errors import InvalidInput
from vitarium.printable import is_hidden, printable

MOST_LETTERS = 100
_SHOWN = 40


def check_stage_name(name: str) -> str:
    """The name, if it is one. Raises InvalidInput that says what is wrong with it."""
    shown = printable(name[:_SHOWN], newline="\\n") + ("…" if len(name) > _SHOWN else "")
    if not name.strip():
        raise InvalidInput(f"'{shown}' names no stage; give it a letter")
    if len(name) > MOST_LETTERS:
        raise InvalidInput(
            f"the stage '{shown}' has a name of {len(name):,} letters; {MOST_LETTERS} are allowed"
        )
    if hidden := next((letter for letter in name if is_hidden(letter)), None):
        raise InvalidInput(
            f"the stage '{shown}' has U+{ord(hidden):04X} in its name, which is not seen; leave it "
            "out"
        )
    return name
