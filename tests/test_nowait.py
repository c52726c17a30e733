"""Which methods are coroutines, and which are their synchronous forms."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import mtaio
from mtaio.cache import BoundCached, Cached, TTLCache

PACKAGES = ["app", "cache", "core", "events", "monitoring", "redis", "resilience", "resources"]
CLASSES = sorted(
    {
        each
        for package in PACKAGES
        for name in importlib.import_module(f"mtaio.{package}").__all__
        if inspect.isclass(each := getattr(importlib.import_module(f"mtaio.{package}"), name))
    },
    key=lambda each: f"{each.__module__}.{each.__qualname__}",
)
SYNCHRONOUS = [
    pytest.param(each, name, id=f"{each.__name__}.{name}")
    for each in CLASSES
    for name in dir(each)
    if name.endswith("_nowait") and not name.startswith("_")
]
WAITING = {"get_or_set", "get_or_set_many", "refresh"}
"""The methods of a cache that run a user's loader."""


def parameters(method: Any) -> list[str]:
    """Return the names of its parameters."""
    return [*inspect.signature(method).parameters]


@pytest.mark.parametrize(("owner", "name"), SYNCHRONOUS)
def test_nowait_is_the_synchronous_form_of_a_coroutine(owner: Any, name: str) -> None:
    """It takes the same arguments, but for how long to wait; neither stands without the other."""
    coroutine, plain = getattr(owner, name.removesuffix("_nowait")), getattr(owner, name)
    assert inspect.iscoroutinefunction(coroutine)
    assert not inspect.iscoroutinefunction(plain)
    waits = [each for each in parameters(coroutine) if each != "timeout"]
    assert parameters(plain) == waits


def test_what_a_cache_does_in_memory_has_both_forms() -> None:
    """Every coroutine of a cache, and of a cached function, but those that load."""
    found = set[str]()
    for owner in (TTLCache, Cached, BoundCached):
        coroutines = {
            name
            for name in dir(owner)
            if not name.startswith("_") and inspect.iscoroutinefunction(getattr(owner, name))
        }
        plain = {name.removesuffix("_nowait") for name in dir(owner) if name.endswith("_nowait")}
        assert coroutines - plain <= WAITING
        found |= plain
    assert {"clear", "contains", "delete", "invalidate", "invalidate_tag"} <= found


def test_all_synchronous_forms_are_checked() -> None:
    """The classes of all packages are looked through, those at top level among them."""
    assert len(SYNCHRONOUS) >= 12
    top = {getattr(mtaio, name) for name in mtaio.__all__}
    assert {
        each
        for each in top
        if inspect.isclass(each)
        and dir(each)
        and any(name.endswith("_nowait") for name in dir(each))
    } <= set(CLASSES)
