"""
Where a value in a text ends, however it is written.

Promise: the end of a value is where its quote is closed, its brackets are, or a blank stands; what
may still be a part of it is taken for one.
Cost: each character is looked at once, but for brackets that are never closed.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["AFTER_QUOTE", "OPENING", "around", "end_of_line", "quoted", "unquoted"]

OPENING: Final = re.compile(r"""[bBrRuUfF]{0,2}(\\*+)(["'])""")
_CLOSING: Final = {
    quote: re.compile(rf"(?<!\\)(?P<slashes>\\*+)(?P<quotes>{quote}++)") for quote in "\"'"
}
_MARKS: Final = re.compile(r"""\s|[,;&|"'()\[\]{}<>]|(?<!\\)\\++(?=["'])""")
_OVER: Final = re.compile(
    r"""[\s,;&|)\]}>"']|\\*+["']|\Z|[\w.-]{1,64}+\\*+["']?\s{0,8}[=:]""",
)
"""What stands behind a comma, a quote or a bracket that ends a value."""

AFTER_QUOTE: Final = re.compile(r"""\s|[,;:)\]}>&|]|\\*+["']|\Z""")


def quoted(text: str, opened: re.Match[str], end: int) -> tuple[int, int]:
    """
    Return where a quoted value ends, without and with its closing quote; ``end`` if it has none.

    Quotes within it are escaped or doubled. If it is quoted within a text that is quoted itself, so
    that backslashes stand before the opening quote, as many stand before the closing one.
    """
    depth = len(opened[1])
    quote: str = opened[2]
    if not depth and text.startswith(2 * quote, opened.end(), end):
        close = text.find(3 * quote, opened.end() + 2, end)
        return (close, close + 3) if close >= 0 else (end, end)
    for found in _CLOSING[quote].finditer(text, opened.end(), end):
        first = found.start("quotes")
        slashes = first - found.start()
        quotes = found.end() - first
        closes = slashes % (2 * (depth + 1)) == depth
        if closes and slashes > depth:
            if AFTER_QUOTE.match(text, first + 1):
                return end, end  # a backslash before the end, or a quote in a text quoted twice
            closes = False
        if depth and (closes or quotes > 1):
            return first - depth, first + 1
        if not depth and (quotes if closes else quotes - 1) % 2:
            return first if closes else first + 1, found.end()
    return end, end


def unquoted(text: str, start: int, *, goes_on: bool = False) -> tuple[int, bool]:
    """
    Return where a value without quotes ends, and False if a bracket in it is never closed.

    It ends at a blank, or where a comma or the like is followed by what cannot be its own. Quotes
    count where brackets are open, or if the value goes on behind one.
    """
    depth = 0
    passed = start
    for found in _MARKS.finditer(text, start):
        at = found.start()
        mark = found[0]
        if at < passed:
            continue
        if mark in "([{<":
            depth += 1
        elif depth and mark in ")]}>":
            depth -= 1
        elif (depth or goes_on) and (opened := OPENING.match(text, at)) is not None:
            passed = quoted(text, opened, len(text))[1]
        elif not depth and (mark.isspace() or _OVER.match(text, found.end())):
            return at, True
    if not depth:
        return len(text), True
    return end_of_line(text, start), False


def around(text: str, found: re.Match[str]) -> re.Match[str] | None:
    """Return the opening quote right before a name, if it is not closed right behind it."""
    start = found.start() - 1
    if found["closed"] is not None or start < 0:
        return None
    while start and text[start - 1] == "\\":
        start -= 1
    opened = OPENING.match(text, start)
    return opened if opened is not None and opened.end() == found.start() else None


def end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
