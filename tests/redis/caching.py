"""What the scripts of `TieredCache` do, in Python, for the server in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio

from mtaio.redis._far import ACQUIRE, KEEP, READ, RENEW, WRITE
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from mtaio.redis._store import Argument, Script
    from tests.redis.memory import Handler

Data = dict[str, Any]


def caching_store(**options: Any) -> MemoryStore:
    """Return a server in memory that has the scripts; its messages are underway for a moment."""

    def publish(channel: Argument, message: Argument) -> None:
        store.start(arrive, str(channel), _bytes(message))

    async def arrive(channel: str, message: bytes) -> None:
        await anyio.sleep(store.latency / 2)
        store.deliver(channel, message)

    def keep(data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
        token, value, milliseconds, channel, message = args
        held = _get(data, keys[1], now)
        if held not in {token, f"{token!s}+"}:
            return 0
        del data[keys[1]]
        _set(data, keys[0], _bytes(value), milliseconds, now)
        if held != token:
            publish(channel, message)
        return 1

    def write(data: Data, now: float, keys: list[str], args: list[Argument]) -> list[int]:
        value, milliseconds, channel, message = args
        there = _get(data, keys[0], now) is not None
        data.pop(keys[0], None)
        data.pop(keys[1], None)
        _set(data, keys[0], _bytes(value), milliseconds, now)
        publish(channel, message)
        return [int(there), store.listeners()]

    scripts: dict[Script, Handler] = {
        ACQUIRE: acquire,
        READ: read,
        KEEP: keep,
        RENEW: renew,
        WRITE: write,
    }
    store = MemoryStore(scripts, **options)
    return store


def acquire(data: Data, now: float, keys: list[str], args: list[Argument]) -> list[Any]:
    """Find the value, or take the lease."""
    token, milliseconds, discard = args
    if discard:
        data.pop(keys[0], None)
    value = _get(data, keys[0], now)
    if value is not None:
        return [value, _left(data, keys[0], now)]
    held = _get(data, keys[1], now)
    if held is None:
        _set(data, keys[1], token, milliseconds, now)
        return [None, 0]
    if not held.endswith("+"):
        data[keys[1]] = (f"{held}+", data[keys[1]][1])
    return [None, max(1, _left(data, keys[1], now))]


def read(data: Data, now: float, keys: list[str], args: list[Argument]) -> list[Any] | None:
    """Find the value."""
    del args
    value = _get(data, keys[0], now)
    return None if value is None else [value, _left(data, keys[0], now)]


def renew(data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
    """Prolong the lease."""
    token, milliseconds = args
    held = _get(data, keys[1], now)
    if held not in {token, f"{token!s}+"}:
        return 0
    _set(data, keys[1], held, milliseconds, now)
    return 1


def _get(data: Data, key: str, now: float) -> Any:
    value, expiry = data.get(key, (None, math.inf))
    return value if expiry > now else None


def _set(data: Data, key: str, value: Any, milliseconds: Any, now: float) -> None:
    if milliseconds:
        data[key] = (value, math.inf if milliseconds < 0 else now + milliseconds / 1000)


def _left(data: Data, key: str, now: float) -> int:
    expiry: float = data[key][1]
    return -1 if expiry == math.inf else math.ceil((expiry - now) * 1000)


def _bytes(value: Argument) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
