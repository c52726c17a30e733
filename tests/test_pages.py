"""What is read on GitHub is what the site shows: the same programs, links and markup."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import pytest

from tests.pages import example, filled, pages
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MADE: Final = {*(ROOT / "docs").glob("*/reference/*/*.md")}
"""Pages made of the docstrings, which tests/site looks at."""

PAGES: Final = [*(page for page in pages() if page not in MADE), ROOT / "CONTRIBUTING.md"]


def test_examples_are_shown_as_they_are() -> None:
    """What a page shows of docs/examples is what stands there: ``python -m tests.pages``."""
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES[:-1]}
    assert [page for page, text in texts.items() if filled(text) != text] == []


def test_block_is_filled_and_marked() -> None:
    """A block that asks for a file, or for a part of one, gets it and one mark, and is kept up."""
    page = 'It prints:\n\n```text\n--8<-- "first.out"\n```\n'
    now = filled(page)
    assert now.startswith("It prints:\n\n<!-- example: first.out -->\n```text\n")
    assert example("first.out") in now
    assert filled(now) == now
    mark = "<!-- example: first.out -->\n"
    assert filled(page.replace("```text", f"{mark}```text")) == now
    assert filled(now.replace("\n```\n", "\nand more\n```\n")) == now


def test_part_is_shown_without_its_edges() -> None:
    """A part of a program is shown without the lines that mark it; so is the whole program."""
    whole, part = example("tutorial_3.py"), example("tutorial_3.py:get")
    assert part in whole
    assert part.startswith("URLS = ")
    assert "8<" not in whole


# ---- as GitHub reads it --------------------------------------------------------------------------

FOREIGN: Final = re.compile(
    r"""
    \*\*                          # bold that does not close: in Japanese, after a bracket or code
    | ^(===|!!!|\?\?\?\+?)\ "?\w  # tabs and admonitions
    | \{\ ?[#.:][\w-]+.*\}$       # attributes
    | \]\[[\w.]+\]                # references that only the site can follow
    | --8<--
    """,
    re.VERBOSE | re.MULTILINE,
)
"""Markup that plain Markdown leaves as text."""


@cache
def tokens(page: Path) -> list[Any]:
    """Return a page as CommonMark with tables has it, which is what GitHub shows."""
    markdown_it = pytest.importorskip("markdown_it")  # comes with rich
    reader = markdown_it.MarkdownIt("commonmark").enable("table")
    return list(reader.parse(page.read_text(encoding="utf-8")))


def inline(page: Path) -> Iterator[Any]:
    """Yield what the paragraphs, headings and cells of a page consist of."""
    for token in tokens(page):
        yield from token.children or ()


def foreign(page: Path) -> list[str]:
    """Return what GitHub would show of a page as it stands there."""
    return [
        token.content
        for token in (*tokens(page), *inline(page))
        if token.type == "code_block" or (token.type == "text" and FOREIGN.search(token.content))
    ]


def test_markup_is_plain() -> None:
    """No page has markup of the site's own, or Markdown that only the site understands."""
    assert {page: found for page in PAGES if (found := foreign(page))} == {}


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading, and the site too."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    """Return what a link into a page may name: its headings, and the anchors before them."""
    found = set(re.findall(r'<a id="([\w.-]+)"></a>', page.read_text("utf-8")))
    pairs = zip(tokens(page), tokens(page)[1:], strict=False)
    for before, token in pairs:
        if before.type == "heading_open":
            parts = token.children or ()
            found.add(slug("".join(p.content for p in parts if p.type in {"text", "code_inline"})))
    return found


def lost_links(page: Path) -> Iterator[str]:
    """Yield the links of a page to files of the repository, or places in them, that are not."""
    for token in inline(page):
        target = unquote(str(token.attrs.get("href") or token.attrs.get("src") or ""))
        if not target or re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            yield target


def test_links_lead_somewhere() -> None:
    """A link to a file of the repository leads to one, and to a heading or an anchor in it."""
    assert {page: lost for page in PAGES if (lost := [*lost_links(page)])} == {}


def test_search_finds_japanese_words() -> None:
    """The site's search takes Japanese apart where the script changes, and leaves names whole."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (separator,) = re.findall(r"^ +separator: '(.*)'$", text, re.MULTILINE)
    words = [word for word in re.split(separator, "RateLimiterのレート制限、max_workers") if word]
    assert words == ["RateLimiter", "の", "レート", "制限", "max_workers"]
