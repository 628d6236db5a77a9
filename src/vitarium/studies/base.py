"""What a study gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitarium.studies.report.page import Page


@dataclass(frozen=True)
class Findings:
    """What a study found: a page, and its sentences by stage; `""` for what is of no stage."""

    page: Page
    said: Mapping[str, Sequence[str]]
