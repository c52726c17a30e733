"""
The kinds of numbers in the statistics of mtaio's objects.

Promise: each field of a statistics class says with ``field(metadata=COUNTER)``, ``GAUGE`` or
``LIMIT`` how its number moves, so that a monitor can export it without knowing the class.

The same words everywhere: ``waiting``, ``in_use``, ``peak``, ``rejected``, ``dropped``,
``timed_out``, ``cancelled``, and names that end in ``_seconds`` for durations.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COUNTER", "GAUGE", "LIMIT"]

COUNTER: Final[Mapping[str, str]] = MappingProxyType({"kind": "counter"})
"""A number that only grows: how often something has happened, or for how many seconds."""

GAUGE: Final[Mapping[str, str]] = MappingProxyType({"kind": "gauge"})
"""A number that goes up and down: how things stand now."""

LIMIT: Final[Mapping[str, str]] = MappingProxyType({"kind": "limit"})
"""A number that was configured: what a gauge is measured against. None for no limit."""
