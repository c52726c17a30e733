"""
The live status page, and ``/stats``, the JSON document that it shows.

Promise: the page, one file of HTML, CSS and JavaScript, loads ``stats`` from its own directory and
nothing from any other host; names and messages are shown as text, never as HTML.
`content_security_policy` lets a browser hold it to that. The document contains no NaN or Infinity,
which JSON does not have. Its history is made in pieces, as they are sent, so that an hour of it
neither holds up the event loop nor is in memory as text.
Cost: the file is read once; each request for it is answered with the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import time
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from mtaio.monitoring._monitor import ResourceMonitor, kinds_of, recent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtaio.monitoring._report import HealthReport
    from mtaio.monitoring._stats import Stall

__all__ = ["content_security_policy", "history", "page", "snapshot"]

_INLINE: Final[re.Pattern[bytes]] = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


@cache
def page() -> bytes:
    """Return the page, in UTF-8."""
    from importlib.resources import files  # noqa: PLC0415 - only where the page is looked at

    return files("mtaio.monitoring").joinpath("page.html").read_bytes()


@cache
def content_security_policy() -> str:
    """Return the policy to send with the page: its own script and style run, and no other."""
    hashes = {
        kind: base64.b64encode(hashlib.sha256(text).digest()).decode()
        for kind, text in _INLINE.findall(page())
    }
    return (
        "default-src 'none'; "
        f"script-src 'sha256-{hashes[b'script']}'; "
        f"style-src 'sha256-{hashes[b'style']}'; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
    )


def snapshot(monitor: ResourceMonitor, report: HealthReport | None, *, name: str | None) -> bytes:
    """
    Return the document without its history and its last brace.

    Args:
        monitor: What is shown.
        report: The last health report.
        name: What the service is called; None for the monitor's name.
    """
    latest = monitor.latest
    stall = monitor.current_stall()
    by_kind = kinds_of(monitor)
    values = _finite(monitor.values())
    parts: dict[str, Any] = {
        "name": monitor.name if name is None else name,
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
    return f"{{{', '.join(pieces)}".encode()


def history(monitor: ResourceMonitor, points: int) -> Iterator[bytes]:
    """
    Return the pieces of the last member of the document, its last brace included.

    They are of one moment, that of the first.

    Args:
        monitor: What is shown.
        points: How many samples at most, the last ones.
    """
    times, columns = recent(monitor, points)
    yield f'"history": {{"timestamps": {_dumps(times.tolist())}, "values": {{'.encode()
    between = ""
    for name, column in columns.items():
        yield f"{between}{_dumps(name)}: {_dumps(column.tolist())}".encode()
        between = ", "
    yield b"}}}"


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
