"""Everything that vitarium raises on purpose; each message says what, where, and what to do."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from vitarium.core.parameters import has_option, parameter
from vitarium.core.printable import printable, shortened

_MAX_LENGTH = 100  # characters of a name in messages


class VitariumError(Exception):
    """Base of all errors of vitarium. `exit_status` is what the command line returns."""

    exit_status = 1


class InvalidInput(VitariumError):
    """What the user wrote cannot be used; nothing was changed."""

    exit_status = 2


class UnknownName(InvalidInput):
    """A name that no plug-in, blueprint, model or factor has; `kind` is e.g. "architecture"."""

    def __init__(self, kind: str, name: str, candidates: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.candidates = kind, name, sorted(candidates)
        label = shortened(printable(str(name), newline="\\n"), _MAX_LENGTH)
        super().__init__(f"unknown {kind} '{label}'{hint or did_you_mean(name, self.candidates)}")


class MissingPlugin(InvalidInput, AttributeError):
    """A zoo's model needs a plug-in that is not installed here; its files are whole.

    An AttributeError too, for what asks its settings for a fact that only the plug-in knows.
    """

    def __init__(self, kind: str, name: str) -> None:
        remedy = "install it, or name its module in VITARIUM_PLUGINS"
        super().__init__(f"{kind} '{printable(name)}' is a plug-in that is not here: {remedy}")


class QueryTimeout(InvalidInput):
    """A query that took longer than it may, and was stopped."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"the query took more than {seconds:g} s and was stopped; ask for less, or allow more: "
            f"{parameter('timeout', 'SECONDS')} (0: no limit)"
        )


class QueryTooLarge(InvalidInput):
    """A query, or its answer, for which there is not memory enough."""


class DataNotFound(InvalidInput):
    """A data set's files are not on this machine."""


class InvalidData(InvalidInput):
    """A data set does not fit what the blueprint says of it."""


class NotAZoo(InvalidInput):
    """A folder that is no zoo, or one of a newer format."""


class ZooInUse(VitariumError):
    """Another process grows the zoo."""

    def __init__(self, path: Path, holder: str) -> None:
        self.path, self.holder = path, holder
        how = f", or let this wait for it: {parameter('wait', True)}" if has_option("wait") else ""
        remedy = f"wait until it is done{how}"
        super().__init__(f"{path} is being grown by {holder}; {remedy}")


class CorruptFile(VitariumError):
    """A file's content is not what was written; it is not used."""

    def __init__(self, path: Path, fault: str) -> None:
        self.path, self.fault = path, fault
        super().__init__(f"corrupt file {path}: {fault}")


class FileFault(VitariumError, OSError):
    """The system does not read or write a file; what was there before is as it was.

    An OSError too, for those who can do without the file.
    """

    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        super().__init__(message)


class WriteFault(FileFault):
    """A file is not written, and others would not be, either."""


class DiskFull(WriteFault):
    """There is no room for a file."""

    def __init__(self, path: Path) -> None:
        remedy = "make room and run the command again (what was there before is whole)"
        super().__init__(path, f"no space left for {path}; {remedy}")


class LeadsOutside(VitariumError, OSError):
    """A folder of a zoo is a link to somewhere else; nothing is written or removed there.

    An OSError too, for those who can do without the file.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        super().__init__(
            f"{path} is, or is reached by, a link that leads out of {root}: nothing was written or "
            "removed there; put the folder itself where the link stands"
        )


class NotWritable(WriteFault):
    """A file may not be written, for a reason such as "/data belongs to root, and you are ann"."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        self.reason, self.remedy = reason, remedy
        super().__init__(path, f"cannot write {path}: {reason}; {remedy}")


class NotReadable(FileFault):
    """A file may not be read."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(path, f"cannot read {path}: {reason}; {remedy}")


class UnusablePath(FileFault):
    """A path that leads nowhere: too long, through a file, or to a folder that is not there."""

    exit_status = 2


class UntrustedFile(VitariumError):
    """A foreign file that would run code when it is read; it is not read."""

    def __init__(self, path: Path, fault: str) -> None:
        self.path, self.fault = path, fault
        super().__init__(f"{path} was not read: {fault}")


class HubError(VitariumError):
    """A hub did not take what was uploaded, or could not be reached."""

    def __init__(self, repository: str, fault: str) -> None:
        self.repository, self.fault = repository, fault
        remedy = "run the same command again to go on"
        super().__init__(f"uploading to {repository} failed: {fault}; {remedy}")


class NotApplicable(VitariumError):
    """A measure has no value for this model, or this pair; others can be measured all the same."""


class IncompatibleWeights(VitariumError):
    """A parent's weights do not fit the model that starts from them."""


class NotKept(UserWarning):
    """Measured values are not stored, since the zoo cannot be written."""


class ByNumber(UserWarning):
    """Outputs of a model are taken for the classes of a data set by their numbers alone."""


class DamagedCache(UserWarning):
    """Warns that something was damaged that has been made anew; nothing is lost."""


def did_you_mean(name: str, candidates: Iterable[str], max_names: int = 12) -> str:
    """`"; did you mean 'x' or 'y'?"`, else the known names; empty where there are none."""
    names = [str(k) for k in candidates]
    words = _words(str(name))
    abbreviated = [match for match in names if _initials(match) == str(name).lower()]
    longer = [match for match in names if words and words <= _words(match)][:3]
    near = abbreviated or longer or difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    if near:
        # one that is very near is named though another is nearer
        ratios = {match: difflib.SequenceMatcher(None, str(name), match).ratio() for match in near}
        nearest = [n for n in near if n == near[0] or n in longer or ratios[n] >= 0.7]
        named = " or ".join(repr(shortened(name, _MAX_LENGTH)) for name in nearest)
        return f"; did you mean {named}?"
    if not names:
        return ""
    listed = [shortened(printable(name, newline="\\n"), _MAX_LENGTH) for name in names[:max_names]]
    ellipsis = ", …" if len(names) > max_names else ""
    return f"; known: {', '.join(listed)}{ellipsis}"


def _initials(name: str) -> str:
    """`hf` of `hugging_face`; nothing of a name of one word."""
    words = re.findall(r"[^\W_]+", name.lower())
    return "".join(word[0] for word in words) if len(words) > 1 else ""


def _words(name: str) -> set[str]:
    """`{"calibration", "error"}` of `calibration_error`."""
    return set(re.findall(r"[^\W_]+", name.lower()))
