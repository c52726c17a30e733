"""
The kinds of numbers in the statistics of mtaio's objects.

Promise: each field of a statistics class says with ``field(metadata=COUNTER)``, ``GAUGE`` or
``LIMIT`` how its number moves, so that a monitor can export it without knowing the class. What its
name does not say is added: ``field(metadata=GAUGE | BYTES)``, and ``COUNTER | {"label": "level"}``
for a mapping by level.

The same words everywhere: ``waiting``, ``in_use``, ``peak``, ``rejected``, ``dropped``,
``timed_out``, ``cancelled``, and names that end in ``_seconds`` for durations.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

__all__ = ["BYTES", "CORES", "COUNTER", "GAUGE", "INFO", "LIMIT", "PARTS", "SECONDS"]

COUNTER: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "counter"})
"""A number that only grows: how often something has happened, or for how many seconds."""

GAUGE: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "gauge"})
"""A number that goes up and down: how things stand now."""

LIMIT: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "limit"})
"""A number that was configured: what a gauge is measured against. None for no limit."""

INFO: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "info"})
"""A text with few values that says what the numbers beside it are of."""

PARTS: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "parts"})
"""A mapping of other statistics by a few fixed names, which become part of their metrics' names."""

BYTES: Final[MappingProxyType[str, str]] = MappingProxyType({"unit": "bytes"})
"""A size whose name does not end in ``_bytes``."""

SECONDS: Final[MappingProxyType[str, str]] = MappingProxyType({"unit": "seconds"})
"""A duration, or a time since the epoch, whose name does not end in ``_seconds``."""

CORES: Final[MappingProxyType[str, str]] = MappingProxyType({"unit": "cores"})
"""A number of processors."""
