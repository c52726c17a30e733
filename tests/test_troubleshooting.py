"""What the pages on troubleshooting explain is still said somewhere in the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mtaio
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUE: Final = "…"
"""What stands for a value, on the pages and here."""

RUN: Final = 3
"""So many words in a row, of those that a page shows of a message, are still said."""


def literal(node: ast.AST) -> str:
    """Return a text with ``…`` in place of what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(literal, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else VALUE


def said() -> str:
    """Return all texts of the library, one a line."""
    texts = {
        " ".join(literal(node).split())
        for path in Path(mtaio.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr)
    }
    return "\n".join(texts)


def entries() -> Iterator[tuple[str, str]]:
    """Yield each page's messages: the first cells of the rows of its tables of messages."""
    for page in sorted((ROOT / "docs/en/guides/troubleshooting").glob("*.md")):
        tables = re.findall(
            r"^\| message \|.*\n((?:\|.*\n)+)", page.read_text("utf-8"), re.MULTILINE
        )
        for row in "".join(tables).splitlines():
            for message in re.findall(r"`([^`]+)`", row.split(" | ")[0]):
                yield page.name, message


def is_said(message: str, library: str) -> bool:
    """Return whether some words in a row of a message are said, or, if it has few, each of them."""
    parts = [part.split() for part in message.split(VALUE)]
    runs = [" ".join(words[at : at + RUN]) for words in parts for at in range(len(words) - RUN + 1)]
    return any(run in library for run in runs) or (
        len(runs) < RUN and all(word in library for words in parts for word in words)
    )


def test_messages_that_are_explained_are_still_said() -> None:
    """The pages have no row for what mtaio no longer says."""
    library = said()
    found = list(entries())
    assert len(found) > 250
    stale = [f"{page}: {message}" for page, message in found if not is_said(message, library)]
    assert stale == []
