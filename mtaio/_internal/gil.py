"""The interpreter's lock, which free-threaded builds of Python are without."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["has_gil"]


def has_gil() -> bool:
    """Return whether only one thread at a time runs Python code, as in all but special builds."""
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return enabled()
