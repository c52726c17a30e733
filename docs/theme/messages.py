"""
A hook of MkDocs: the site's search finds a message of mtaio by its own words.

Material's search knows pages and sections. Here each message of the tables on troubleshooting
becomes a result of its own, with the message as its title: words of a title count for most.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

PAGES: Final = "guides/troubleshooting/"
BOOST: Final = 1.5
"""How much a message counts: with less, a pasted one finds other pages; with more, a word does."""

ROW: Final = re.compile(r"<td>(<code>.*?)</td>\s*<td>(.*?)</td>", re.DOTALL)
MESSAGE: Final = re.compile(r"<code>(.*?)</code>")
LINK: Final = re.compile(r"</?a\b[^>]*>")


def with_messages(html: str, address: str) -> tuple[str, list[dict[str, Any]]]:
    """Return a page in which each message has an anchor, and the messages for the index."""
    numbers = count(1)
    found: list[dict[str, Any]] = []

    def anchored(row: re.Match[str]) -> str:
        def message(code: re.Match[str]) -> str:
            name = f"message-{next(numbers)}"
            entry = {"location": f"{address}#{name}", "title": code[1], "text": text}
            found.append({**entry, "boost": BOOST})
            return f'<code id="{name}">{code[1]}</code>'

        text = LINK.sub("", row[2])
        return row[0].replace(row[1], MESSAGE.sub(message, row[1]), 1)

    return ROW.sub(anchored, html), found


def on_page_context(
    context: dict[str, Any], *, page: Page, config: MkDocsConfig, **_: object
) -> dict[str, Any]:
    """Add the messages of a page to the index, after the search has added its sections."""
    if PAGES in page.url and not page.url.endswith(PAGES):
        search: Any = next(p for name, p in config.plugins.items() if name.endswith("search"))
        page.content, found = with_messages(page.content or "", page.url)
        search.search_index.entries += found
    return context
