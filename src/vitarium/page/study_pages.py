"""What the page is told of a zoo's studies: their pages, and the lineages that they recovered."""

import html
import re
from pathlib import Path

from vitarium.core.printable import printable, shortened
from vitarium.page.answers.studies import StoredLineage, Studies, StudyPage
from vitarium.zoo import studies

_HEAD_BYTES = 1 << 14
_MAX_TITLE = 200
_TITLE = re.compile(r"<title[^<>]{0,100}>([^<]{0,2000})", re.I)
_STUDY = re.compile(r'<meta name="vitarium-study" content="(\w{1,60})">')


def study_pages(zoo: Path) -> Studies:
    """The pages of a zoo's studies, and its recovered lineages. Raises NotReadable."""
    pages = [_described(file) for file in studies.pages(zoo)]
    pages.sort(key=lambda page: page["date"], reverse=True)
    lineages = [
        StoredLineage(name=file.stem, date=studies.date(file)) for file in studies.lineages(zoo)
    ]
    return {"pages": pages, "lineages": lineages}


def _described(page: Path) -> StudyPage:
    with page.open("rb") as file:
        head = file.read(_HEAD_BYTES).decode(errors="replace")
    title, study = _TITLE.search(head), _STUDY.search(head)
    text = " ".join(printable(html.unescape(title[1])).split()) if title else ""
    return {
        "name": page.stem,
        "title": shortened(text, _MAX_TITLE) or page.stem,
        "study": study[1] if study else "",
        "date": studies.date(page),
    }
