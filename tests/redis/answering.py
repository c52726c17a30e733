"""A server in memory that answers the scripts of `RedisQuota` and `RedisBreaker` simply."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mtaio.redis._circuit import CHANGE
from mtaio.redis._levels import TAKE
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from mtaio.redis._store import Argument


def take(data: dict[str, Any], now: float, keys: list[str], args: list[Argument]) -> list[Any]:
    """Grant one request a second."""
    limits, requests = int(args[1]), int(args[5])
    left = data.get(keys[0], -math.inf) + 1 - now
    granted = int(requests > 0 >= left)
    if granted:
        data[keys[0]] = now
    wait = max(0.0, 1.0 if granted else left) * 1e6
    return [granted, int(now * 1e6), str(wait), "0", 1, *["1", "1"] * limits]


def stay_closed(*_: object) -> list[Any]:
    """Say that the circuit is closed."""
    return [b"closed", 0, b"0", 0, 0, b""]


def answering_store(**options: Any) -> MemoryStore:
    """Return a server in memory that knows both scripts."""
    return MemoryStore({TAKE: take, CHANGE: stay_closed}, **options)
