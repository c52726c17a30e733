"""What the script of `RedisRateLimiter` does, in Python, for the server in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mtaio.redis._bucket import RESERVE
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from mtaio.redis._store import Argument


def reserve(data: dict[str, Any], now: float, keys: list[str], args: list[Argument]) -> list[Any]:
    """Do what the script says, line for line."""
    now *= 1e6
    interval, burst, needed, most, held, ahead, within = map(float, args[:7])
    full, seen = data.get(keys[0], (0.0, 0.0))
    if now < seen:
        full += now - seen
        data.pop(keys[1], None)
        data[keys[0]] = full, now
    full = max(full, now)
    first = full + (1 - burst) * interval - now
    if not needed:
        data[keys[0]] = full, now
        return [0, str(first).encode(), 1, 0]
    busy = data.setdefault(keys[1], {})
    busy[args[7]] = now
    for asker in [asker for asker, asked in busy.items() if asked <= now - 1e6]:
        del busy[asker]
    share = math.floor((ahead + max(0.0, -first)) / interval / len(busy))
    due = first + (needed - 1) * interval
    if due > within:
        return [0, str(due).encode(), len(busy), share]
    free = share - held if within else math.floor(-first / interval) + 1
    taken = int(max(needed, min(most, free)))
    if not within:
        taken -= int(taken % needed)
    data[keys[0]] = full + taken * interval, now
    return [taken, str(first).encode(), len(busy), share]


def reserving_store(**options: Any) -> MemoryStore:
    """Return a server in memory that knows the script."""
    return MemoryStore({RESERVE: reserve}, **options)
