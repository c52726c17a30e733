"""
The reference is what `tests.reference` makes of the code, and shows every public name.

The session `docs` runs this, which has griffe and the built site.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pages import DOCS
from tests.test_pages import MADE, foreign

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = (
    *("app", "asgi", "cache", "clients", "config", "core", "events", "exceptions", "logging"),
    *("monitoring", "redis", "resilience", "resources", "statistics", "testing", "types"),
)


def anchors() -> set[str]:
    """Return the full names that the site has a place for."""
    pages = (Path(os.environ["MTAIO_SITE"]) / "reference").rglob("*.html")
    texts = (page.read_text(encoding="utf-8") for page in pages)
    return {name for text in texts for name in re.findall(r'<a id="(mtaio\.[\w.]+)">', text)}


def public_names() -> Iterator[tuple[str, tuple[str, ...]]]:
    """
    Yield each public name of mtaio, and each public member of each public class.

    A name that several packages have has one place: each is yielded with all its names.
    """
    modules = {name: importlib.import_module(f"mtaio.{name}") for name in PACKAGES}
    values = {
        f"mtaio.{m}.{n}": getattr(each, n) for m, each in modules.items() for n in each.__all__
    }
    for name, value in values.items():
        names = tuple(other for other in values if values[other] is value)
        yield name, names
        if inspect.isclass(value) and value.__module__.startswith("mtaio."):
            arguments = inspect.signature(value.__init__).parameters  # shown in one list
            for member in ours(value):
                if member not in arguments:
                    yield f"{name}.{member}", tuple(f"{each}.{member}" for each in names)


def ours(cls: type) -> list[str]:
    """Return the public members of a class that are documented by mtaio's own code."""
    found = []
    for attribute in inspect.classify_class_attrs(cls):
        home = attribute.defining_class
        if attribute.name.startswith("_") or not home.__module__.startswith("mtaio."):
            continue
        if attribute.kind != "data" or inspect.isdatadescriptor(attribute.object):
            found.append(attribute.name)
    return found


NAMES = dict(public_names())


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """Return what the site shows."""
    return anchors()


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_in_the_reference(shown: set[str], name: str) -> None:
    """A public class, function, method, property or field has its place in the reference."""
    assert shown.intersection(NAMES[name])


def test_reference_is_made_of_the_code() -> None:
    """Each page is what the docstrings say, and there is no other: run `tests.reference`."""
    from tests.reference import written  # noqa: PLC0415 - griffe is in the group `docs` alone

    pages = dict(written())
    assert set(pages) >= MADE
    read = {path: path.read_text(encoding="utf-8") if path.exists() else "" for path in pages}
    assert [path for path, text in pages.items() if read[path] != text] == []


def test_reference_is_plain_markdown() -> None:
    """GitHub reads it as the site does; mkdocs has checked the links."""
    assert {page: found for page in MADE if (found := foreign(page))} == {}


def test_reference_names_nothing_private() -> None:
    """What a signature names can be imported: a private name has a simple one in its place."""
    pages = DOCS.glob("en/reference/**/*.md")
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    blocks = {
        page: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for page, text in texts.items()
    }
    found = [
        (page, block) for page in blocks for block in blocks[page] if re.search(r"\b_[A-Z]", block)
    ]
    assert found == []
