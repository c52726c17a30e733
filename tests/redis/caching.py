"""What the scripts of `TieredCache` do, in Python, for the server in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio

from mtaio.redis._far import (
    ACQUIRE,
    DROP,
    INCREMENT,
    KEEP,
    READ,
    RENEW,
    TAGS,
    TOUCH,
    WRITE,
)
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from mtaio.redis._store import Argument, Script
    from tests.redis.memory import Handler

Data = dict[str, Any]


class CachingStore(MemoryStore):
    """A server in memory that has the scripts; its messages are underway for a moment."""

    def __init__(self, **options: Any) -> None:
        scripts: dict[Script, Handler] = {
            ACQUIRE: acquire,
            DROP: self._drop,
            INCREMENT: self._increment,
            KEEP: self._keep,
            READ: read,
            RENEW: renew,
            TAGS: tokens,
            TOUCH: self._touch,
            WRITE: self._write,
        }
        super().__init__(scripts, **options)

    def _publish(self, channel: Argument, message: Argument) -> int:
        self.start(self._arrive, str(channel), _bytes(message))
        return self.listeners(str(channel))

    async def _arrive(self, channel: str, message: bytes) -> None:
        await anyio.sleep(self.latency / 2)
        self.deliver(channel, message)

    def _keep(self, data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
        token, value, milliseconds, channel, message = args
        held = _get(data, keys[1], now)
        if held not in {token, f"{token!s}+"}:
            return 0
        del data[keys[1]]
        _set(data, keys[0], _bytes(value), milliseconds, now)
        if held != token:
            self._publish(channel, message)
        return 1

    def _write(self, data: Data, now: float, keys: list[str], args: list[Argument]) -> list[Any]:
        channel, message, milliseconds, *values = args
        answer: list[Any] = [self._publish(channel, message)]
        for number, key in enumerate(keys[::2]):
            value = _get(data, key, now)
            answer.append(0 if value is None else _tags(value))
            data.pop(key, None)
            data.pop(f"{key}:load", None)
            if milliseconds:
                _set(data, key, _bytes(values[number]), milliseconds, now)
        return answer

    def _touch(self, data: Data, now: float, keys: list[str], args: list[Argument]) -> list[Any]:
        milliseconds, channel, message = args[2:]
        value = ask(data, now, keys[0], args)
        if value is None or isinstance(value, list):
            return value or [0]
        left = _left(data, keys[0], now)
        del data[keys[0]]
        _set(data, keys[0], value, milliseconds, now)
        if milliseconds == -1 or 0 <= left <= float(milliseconds):
            return [1]
        self._publish(channel, message)
        return [2]

    def _increment(
        self, data: Data, now: float, keys: list[str], args: list[Argument]
    ) -> list[Any]:
        delta, milliseconds, channel, message = args[2:]
        value = ask(data, now, keys[0], args)
        if isinstance(value, list):
            return value
        tags = _tags(value or b"")
        try:
            made = b"%d" % (int((value or b"0")[len(tags) :]) + int(delta))
        except ValueError:
            return [b"ERR value is not an integer or out of range"]
        if value is None:
            data.pop(keys[0], None)
            _set(data, keys[0], made, milliseconds, now)
        else:
            data[keys[0]] = (tags + made, data[keys[0]][1])
        data.pop(keys[1], None)
        return [made, self._publish(channel, message)]

    def _drop(self, data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
        del now
        for key in keys:
            data.pop(key, None)
        return self._publish(*args) if args[1] else 0


def caching_store(**options: Any) -> MemoryStore:
    """Return a server in memory that has the scripts."""
    return CachingStore(**options)


def acquire(data: Data, now: float, keys: list[str], args: list[Argument]) -> list[Any]:
    """Find the value, or take the lease."""
    token, milliseconds, no_use = args
    value = _get(data, keys[0], now)
    if value is not None and (no_use == "1" or (no_use and _tags(value) == no_use)):
        del data[keys[0]]
        value = None
    if value is not None:
        return [value, _left(data, keys[0], now)]
    held = _get(data, keys[1], now)
    if held is None:
        _set(data, keys[1], token, milliseconds, now)
        return [None, 0]
    if not held.endswith("+"):
        data[keys[1]] = (f"{held}+", data[keys[1]][1])
    return [None, max(1, _left(data, keys[1], now))]


def read(data: Data, now: float, keys: list[str], args: list[Argument]) -> list[Any]:
    """Find values."""
    del args
    values = {key: _get(data, key, now) for key in keys}
    return [
        None if value is None else [value, _left(data, key, now)] for key, value in values.items()
    ]


def ask(data: Data, now: float, key: str, args: list[Argument]) -> Any:
    """Return the value, or a list that asks about its tags."""
    value = _get(data, key, now)
    tags = _tags(value or b"")
    if tags and tags != args[0]:
        return [None, tags]
    return None if tags and not args[1] else value


def tokens(data: Data, now: float, keys: list[str], args: list[Argument]) -> list[bytes | None]:
    """Find the tokens of tags, or make them."""
    new, milliseconds = args
    for key in keys:
        token = _get(data, key, now)
        if token is None and new:
            data.pop(key, None)
            _set(data, key, _bytes(new), milliseconds, now)
        elif token is not None and (
            milliseconds == -1 or 0 <= _left(data, key, now) < float(milliseconds)
        ):
            _set(data, key, token, milliseconds, now)
    return [_get(data, key, now) for key in keys]


def renew(data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
    """Prolong the lease."""
    token, milliseconds = args
    held = _get(data, keys[1], now)
    if held not in {token, f"{token!s}+"}:
        return 0
    _set(data, keys[1], held, milliseconds, now)
    return 1


def _tags(value: bytes) -> bytes:
    return value[: value.index(b"\n") + 1] if value.startswith(b"\0#") else b""


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
