"""
The pages of the docs and both READMEs show files of docs/examples, word for word.

A fenced block below ``<!-- example: NAME.py -->`` has what is in that file, so that a page can be
read on GitHub, where nothing is included; below ``<!-- example: NAME.py:part -->`` it has what
stands there between ``# --8<-- [start:part]`` and ``# --8<-- [end:part]``.

``python -m tests.pages`` writes these blocks again. A block whose only line is
``--8<-- "NAME.py"`` is filled, and gets its comment.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import TYPE_CHECKING, Final

from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCS: Final = ROOT / "docs"
EXAMPLES: Final = DOCS / "examples"
READMES: Final = ("README.md", "README.ja.md")

SHOWN: Final = re.compile(
    r"^<!-- example: (?P<name>\S+) -->\n"
    r"(?P<mark>`{3,})(?P<language>.*)\n(?P<body>(?:.*\n)*?)(?P=mark)$",
    re.MULTILINE,
)
ASKED: Final = re.compile(
    r"^(?:<!-- example: \S+ -->\n)*"
    r'(?P<mark>`{3,})(?P<language>.*)\n--8<-- "(?P<name>\S+)"\n(?P=mark)$',
    re.MULTILINE,
)

_PART: Final = re.compile(r"^ *# --8<-- \[\w+:\w+\]\n", re.MULTILINE)
"""A line at which a part begins or ends. No page shows it."""


def pages() -> Iterator[Path]:
    """Yield each page, and both READMEs."""
    yield from (ROOT / name for name in READMES)
    yield from sorted(DOCS.rglob("*.md"))


def example(name: str) -> str:
    """Return the file, or the part of one, that has this name in a page."""
    path, _, part = name.partition(":")
    text = (EXAMPLES / path).read_text(encoding="utf-8")
    if part:
        begin, end = (f"# --8<-- [{edge}:{part}]\n" for edge in ("start", "end"))
        assert (text.count(begin), text.count(end)) == (1, 1), name
        text = dedent(text.partition(begin)[2].partition(end)[0].rstrip(" "))
    return _PART.sub("", text).strip("\n") + "\n"


def filled(page: str) -> str:
    """Return a page with its examples as they are now."""

    def block(found: re.Match[str]) -> str:
        name, mark = found["name"], found["mark"]
        text = example(name)
        assert f"\n{mark}" not in f"\n{text}", f"{name} needs a longer fence than {mark}"
        return f"<!-- example: {name} -->\n{mark}{found['language']}\n{text}{mark}"

    return SHOWN.sub(block, ASKED.sub(block, page))


def rewrite() -> None:
    """Write the examples again in every page."""
    for path in pages():
        page = path.read_text(encoding="utf-8")
        if (now := filled(page)) != page:
            path.write_text(now, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    rewrite()
