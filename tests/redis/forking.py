"""What a fork makes of a limiter, in one process: the same memory once more."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

T = TypeVar("T")


def forked(limiter: T, store: object) -> T:
    """Return what a forked process has in place of ``limiter``; ``copy`` itself refuses that."""
    twin = object.__new__(type(limiter))
    shared: dict[int, Any] = {id(store): store, id(limiter): twin}
    state: Any = object.__getstate__(limiter)
    attributes, slots = state
    for name, value in {**(attributes or {}), **slots}.items():
        setattr(twin, name, copy.deepcopy(value, shared))
    return twin
