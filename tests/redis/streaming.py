"""What the server does for `bridge`, in Python: a stream and its groups in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from mtaio.exceptions import StoreError
from mtaio.redis._entries import CLAIM, HOLD, JOIN, LEAVE
from tests.redis.memory import Handler, MemoryStore

if TYPE_CHECKING:
    from mtaio.redis._store import Argument

Data = dict[str, Any]
Fields = dict[bytes, bytes]


@dataclass
class Pending:
    """An entry that a consumer has and has not acknowledged."""

    consumer: str
    since: float
    deliveries: int = 1


@dataclass
class Stream:
    """A stream with its groups: how far each has read, and what is pending."""

    entries: dict[str, Fields] = field(default_factory=dict)
    added: int = 0
    read: dict[str, int] = field(default_factory=dict)
    pending: dict[str, dict[str, Pending]] = field(default_factory=dict)

    def add(self, fields: Fields, most: int) -> str:
        """Add an entry, and drop the oldest."""
        self.added += 1
        number = f"{self.added}-0"
        self.entries[number] = fields
        while len(self.entries) > most:
            del self.entries[next(iter(self.entries))]
        return number


class StreamStore(MemoryStore):
    """Has streams, and reads that wait for what is new."""

    def __init__(self, **options: Any) -> None:
        scripts = {JOIN: join, CLAIM: _known(claim), HOLD: _known(hold), LEAVE: _known(leave)}
        commands = {"XADD": self.add, "XACK": acknowledge, "XREADGROUP": _known(read)}
        super().__init__(scripts, commands, **options)
        self.added = anyio.Event()

    async def command(self, *args: Argument, timeout: float | None = None) -> Any:
        """Wait, if it is a read that finds nothing."""
        if args[0] != "XREADGROUP":
            return await super().command(*args, timeout=timeout)
        with anyio.move_on_after(float(args[7]) / 1000):
            while True:
                added = self.added
                answer = await super().command(*args, timeout=timeout)
                if answer is not None:
                    return answer
                await added.wait()
        return None

    def add(self, data: Data, now: float, keys: list[str], args: list[Argument]) -> bytes:
        """XADD key MAXLEN ~ most * field value ... as the server does."""
        del now, keys
        key, _, _, most, _, *pairs = args
        texts = [each if isinstance(each, bytes) else str(each).encode() for each in pairs]
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        added = data.setdefault(str(key), Stream()).add(fields, int(most))
        self.added.set()
        self.added = anyio.Event()
        return str(added).encode()


def _known(handler: Handler) -> Handler:
    """Refuse a group that there is not, as the server does."""

    def checked(data: Data, now: float, keys: list[str], args: list[Argument]) -> Any:
        try:
            return handler(data, now, keys, args)
        except KeyError:
            msg = "memory://: NOGROUP No such key or consumer group"
            raise StoreError(msg) from None

    return checked


def read(data: Data, now: float, keys: list[str], args: list[Argument]) -> Any:
    """XREADGROUP GROUP group consumer COUNT count BLOCK milliseconds STREAMS key >."""
    del keys
    _, group, consumer, _, count, _, _, _, key, _ = map(str, args)
    stream: Stream = data[key]
    new = [each for each in stream.entries if int(each[:-2]) > stream.read[group]][: int(count)]
    for each in new:
        stream.read[group] = int(each[:-2])
        stream.pending[group][each] = Pending(consumer, now)
    if not new:
        return None
    found = {each.encode(): [[*pair] for pair in stream.entries[each].items()] for each in new}
    return {key.encode(): found}


def acknowledge(data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
    """XACK key group id."""
    del now, keys
    key, group, number = map(str, args)
    pending = data[key].pending.get(group, {}) if key in data else {}
    return int(pending.pop(number, None) is not None)


def join(data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
    """Make the group."""
    del now
    stream: Stream = data.setdefault(keys[0], Stream())
    group, start, _ = args
    stream.read.setdefault(str(group), 0 if start == "0" else stream.added)
    stream.pending.setdefault(str(group), {})
    return 1


def claim(data: Data, now: float, keys: list[str], args: list[Argument]) -> list[Any]:
    """Claim what is idle."""
    group, consumer, idle, count, most, length = args
    stream: Stream = data[keys[0]]
    held = stream.pending[str(group)]
    claimed: list[Any] = []
    aside = gone = 0
    found = [each for each in held if (now - held[each].since) * 1000 >= float(idle) - 1e-6]
    for each in found[: int(count)]:
        fields = stream.entries.get(each)
        if fields is None:
            del held[each]
            gone += 1
        elif held[each].deliveries >= int(most):
            where: Stream = data.setdefault(keys[1], Stream())
            where.add({b"id": each.encode(), **fields}, int(length))
            del held[each]
            aside += 1
        else:
            held[each] = Pending(str(consumer), now, held[each].deliveries + 1)
            flat = [part for pair in fields.items() for part in pair]
            claimed.append([each.encode(), held[each].deliveries, flat])
    return [claimed, aside, gone]


def hold(data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
    """Restart the time of what is still held."""
    group, consumer, *ids = map(str, args)
    held = data[keys[0]].pending[group]
    for each in ids:
        if each in held and held[each].consumer == consumer:
            held[each].since = now
    return 1


def leave(data: Data, now: float, keys: list[str], args: list[Argument]) -> int:
    """Have what is held be claimed by the next."""
    group, consumer, idle = args
    held = data[keys[0]].pending[str(group)]
    mine = [each for each in held.values() if each.consumer == consumer]
    for each in mine:
        each.since = now - float(idle) / 1000
    return len(mine)
