"""
Type variables that have a default, which Python's own have from 3.13 on.

Cost: below 3.13 typing_extensions is loaded, as `anyio.run` does too. `mtaio.cache` is without it.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:  # pragma: no cover - coverage is measured on the newest Python
    from typing_extensions import TypeVar

__all__ = ["TypeVar"]
