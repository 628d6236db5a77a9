"""Texts of anyone in Markdown."""

import pytest
from markdown_it import MarkdownIt

from vitarium.formats.hub._card import code, plain, table

HOSTILE = [
    "<script>alert(1)</script>",
    "**b** _i_ `c` ~~s~~ [a](https://x) ![i](https://x)",
    "a|b",
    "two\nlines",
    "\x1b[31m",
    "# heading",
    "&lt;",
    "https://x <https://y>",
    "`` ` ```",
    "\\",
    "$x$",
]


def read(text):
    """What a reader of GitHub's Markdown makes of it."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)


def texts(text):
    """Kinds of what is inside, and the text that people see."""
    inside = [child for token in read(text) if token.type == "inline" for child in token.children]
    return {child.type for child in inside}, "".join(child.content for child in inside)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_plain_text_has_no_markup(name):
    kinds, seen = texts(f"## {plain(name)} ##")
    assert kinds <= {"text", "text_special"}
    assert seen.strip() == name.replace("\n", " ").replace("\x1b", r"\x1b").strip()


@pytest.mark.parametrize("name", HOSTILE)
def test_cells_hold_what_they_are_given(name):
    text = table(["a", "b"], [[plain(name), code(name)], ["1", "2"]])
    cells = [token for token in read(text) if token.type == "td_open"]
    assert len(cells) == 4
    kinds, _ = texts(text)
    assert kinds <= {"text", "text_special", "code_inline"}


def test_ordinary_names_stay_as_they_are():
    for name in ("pretrain", "batch_size", "fine-tune 2", "lr=0.01", "füße", "事前学習"):
        assert plain(name) == name
    assert code("optimizer.lr") == "`optimizer.lr`"
