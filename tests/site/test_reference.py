"""The reference pages of the built site show every public name. The session `docs` runs this."""

from __future__ import annotations

import importlib
import inspect
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = (
    "cache",
    "config",
    "core",
    "events",
    "exceptions",
    "logging",
    "monitoring",
    "resilience",
    "resources",
    "testing",
)


def inventory() -> set[str]:
    """Return the full names that the site has a place for."""
    _, _, _, _, packed = (
        (Path(os.environ["MTAIO_SITE"]) / "objects.inv").read_bytes().split(b"\n", 4)
    )
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines if " py:" in line}


def public_names() -> Iterator[str]:
    """Yield each public name of mtaio, and each public member of each public class."""
    for name in MODULES:
        module = importlib.import_module(f"mtaio.{name}")
        for public in module.__all__:
            yield f"{module.__name__}.{public}"
            value = getattr(module, public)
            if inspect.isclass(value) and value.__module__.startswith("mtaio."):
                arguments = inspect.signature(value.__init__).parameters  # shown in one table
                for member in ours(value):
                    if member not in arguments:
                        yield f"{module.__name__}.{public}.{member}"


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


NAMES = sorted(public_names())


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """Return what the site shows."""
    return inventory()


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_in_the_reference(shown: set[str], name: str) -> None:
    """A public class, function, method, property or field has its place in the reference."""
    assert name in shown
