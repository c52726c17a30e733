"""
Everything a monitor knows, as the JSON document of ``/stats``.

Promise: it contains no NaN or Infinity, which JSON does not have. It is made in pieces with a
checkpoint after each, so that an hour of history does not hold up the event loop.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from mtaio.monitoring._monitor import ResourceMonitor
    from mtaio.monitoring._report import HealthReport
    from mtaio.monitoring._stats import Stall

__all__ = ["snapshot"]


async def snapshot(monitor: ResourceMonitor, report: HealthReport | None, *, points: int) -> bytes:
    """
    Return the document.

    A checkpoint if there is history in it.

    Args:
        monitor: What is shown.
        report: The last health report.
        points: The last samples of every metric to show, 0 for no history.
    """
    latest = monitor.latest
    stall = monitor.current_stall()
    by_kind = monitor.kinds()
    values = _finite(monitor.values())
    parts: dict[str, Any] = {
        "name": monitor.name,
        "now": time.time(),
        "uptime": None if latest is None else latest.uptime,
        "interval": monitor.interval,
        "stats": None if latest is None else asdict(latest),
        "values": values,
        "limits": {name: each for name, each in values.items() if by_kind.get(name) == "limit"},
        "kinds": by_kind,
        "firing": [asdict(alert) for alert in monitor.firing],
        "alerts": [asdict(alert) for alert in monitor.alerts],
        "stall": None if stall is None else _stall(stall),
        "stalls": [_stall(each) for each in monitor.stalls],
        "thresholds": [asdict(each) for each in monitor.thresholds],
        "health": None if report is None else asdict(report),
    }
    pieces = [f"{_dumps(name)}: {_dumps(value)}" for name, value in parts.items()]
    if points:
        pieces.append(f'"history": {await _history(monitor, points)}')
    return f"{{{', '.join(pieces)}}}".encode()


async def _history(monitor: ResourceMonitor, points: int) -> str:
    times, columns = monitor.recent(points)
    pieces: list[str] = []
    for name, column in columns.items():
        pieces.append(f"{_dumps(name)}: {_dumps([_or_null(value) for value in column])}")
        await checkpoint()
    return f'{{"timestamps": {_dumps(times)}, "values": {{{", ".join(pieces)}}}}}'


def _stall(stall: Stall) -> dict[str, Any]:
    """Return a stall without its stack, which is long."""
    return {
        "seconds": stall.seconds,
        "place": stall.place,
        "cause": stall.cause,
        "timestamp": stall.timestamp,
    }


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _dumps(value: object) -> str:
    """Return JSON; NaN and infinity become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return _or_null(value)
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in cast("list[Any]", value)]
    return value
