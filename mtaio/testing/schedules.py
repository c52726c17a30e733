"""
The parts of which `mtaio.testing.explore` is made, for searches of your own, and what runs report.

Promise: `exhaustive` yields every schedule with at most so many delays, `shrink` makes one that
fails small, `schedules` lets Hypothesis draw them. Each is imported on first use, and Hypothesis
with `schedules` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.testing._diagnostics import Place, Stack, Step
    from mtaio.testing._schedule import exhaustive, shrink
    from mtaio.testing._strategies import schedules

__all__ = ["Place", "Stack", "Step", "exhaustive", "schedules", "shrink"]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.testing._diagnostics": ("Place", "Stack", "Step"),
            "mtaio.testing._schedule": ("exhaustive", "shrink"),
            "mtaio.testing._strategies": ("schedules",),
        },
    )
