"""
The operations of a bridge on its stream; each is one step at the server.

Promise: an entry that was added stays with the group until it is acknowledged or set aside, and
setting it aside acknowledges it in the same step. An entry that is no longer in the stream, because
the stream is bounded, is acknowledged and counted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mtaio.redis._store import Script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtaio.redis._store import Connection, Store

__all__ = ["CLAIM", "HOLD", "JOIN", "LEAVE", "Claimed", "Entry", "GroupStream"]

_IDLE_CONSUMER: Final = 3_600_000
"""Milliseconds of silence after which a consumer that holds nothing is deleted."""

# KEYS: the stream. ARGV: group, where it begins ("0" or "$"), milliseconds.
JOIN: Final = Script("""
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local info = {}
    for i = 1, #consumer, 2 do info[consumer[i]] = consumer[i + 1] end
    if info['pending'] == 0 and info['idle'] > tonumber(ARGV[3]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info['name'])
    end
end
return 1
""")

# KEYS: the stream, where entries are set aside. ARGV: group, consumer, milliseconds that an entry
# has to be idle, how many to claim, after how many deliveries one is set aside, the most entries
# that are kept aside.
# Returns: {{id, deliveries, fields}, ...}, how many were set aside, how many were gone.
CLAIM: Final = Script("""
local claimed, aside, gone = {}, 0, 0
local idle = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])
for _, pending in ipairs(idle) do
    local id, deliveries = pending[1], pending[4]
    local there = redis.call('XRANGE', KEYS[1], id, id)[1]
    if not there then
        redis.call('XACK', KEYS[1], ARGV[1], id)
        gone = gone + 1
    elseif deliveries >= tonumber(ARGV[5]) then
        redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'id', id, 'group', ARGV[1],
            'deliveries', deliveries, unpack(there[2]))
        redis.call('XACK', KEYS[1], ARGV[1], id)
        aside = aside + 1
    else
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], id)
        claimed[#claimed + 1] = {id, deliveries + 1, there[2]}
    end
end
return {claimed, aside, gone}
""")

# KEYS: the stream. ARGV: group, consumer, ids. Resets the idle time of those entries that the
# consumer still has.
HOLD: Final = Script("""
for i = 3, #ARGV do
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
    if #pending > 0 then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    end
end
return 1
""")

# KEYS: the stream. ARGV: group, consumer, milliseconds. Lets the next consumer that looks claim
# what this one holds, and deletes this one if it holds nothing.
LEAVE: Final = Script("""
local held = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])
for _, pending in ipairs(held) do
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, pending[1], 'IDLE', ARGV[3], 'JUSTID')
end
if #held == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end
return #held
""")


class Entry(NamedTuple):
    """One entry of the stream."""

    id: str
    deliveries: int
    """How often it has been delivered, this time included."""
    fields: dict[bytes, bytes]


class Claimed(NamedTuple):
    """What became of entries that nobody has acknowledged in time."""

    entries: list[Entry]
    aside: int
    gone: int


class GroupStream:
    """
    A stream, as one consumer of a group sees it.

    Args:
        store: The server.
        name: The name of the stream.
        group: The group whose consumers share the entries.
        consumer: The name of this one.
        max_length: About how many entries are kept, and as many of those set aside.
        claim_after: Seconds after which an entry that is not acknowledged goes to another consumer.
        max_deliveries: After how many deliveries an entry is set aside.
        start: Where a new group begins: ``"0"`` or ``"$"``.
    """

    __slots__ = (
        "_aside",
        "_claim_after",
        "_consumer",
        "_group",
        "_max_deliveries",
        "_max_length",
        "_start",
        "_store",
        "_stream",
    )

    def __init__(
        self,
        store: Store,
        name: str,
        group: str,
        consumer: str,
        *,
        max_length: int,
        claim_after: float,
        max_deliveries: int,
        start: str,
    ) -> None:
        self._store = store
        self._stream = f"mtaio:events:{{{name}}}"
        self._aside = f"{self._stream}:aside"
        self._group = group
        self._consumer = consumer
        self._max_length = max_length
        self._claim_after = math.ceil(claim_after * 1000)
        self._max_deliveries = max_deliveries
        self._start = start

    async def add(self, fields: dict[str, bytes | str]) -> str:
        """Add an entry; return its id."""
        pairs = [each for pair in fields.items() for each in pair]
        bound = ("MAXLEN", "~", self._max_length)
        added = await self._store.command("XADD", self._stream, *bound, "*", *pairs)
        return _text(added)

    async def join(self) -> None:
        """Create the stream and the group if they do not exist."""
        await self._store.script(JOIN, [self._stream], (self._group, self._start, _IDLE_CONSUMER))
        self._start = "0"  # if it has to be created again, what was sent since counts

    async def read(self, connection: Connection, count: int, wait: float) -> list[Entry]:
        """Return new entries, up to ``count``; wait for one at the server."""
        answer = await connection.command(
            *("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count),
            *("BLOCK", max(1, round(wait * 1000)), "STREAMS", self._stream, ">"),
            timeout=wait + self._store.timeout,
        )
        entries: dict[bytes, Any] = next(iter(answer.values())) if answer else {}
        return [Entry(_text(each), 1, dict(pairs)) for each, pairs in entries.items()]

    async def claim(self, count: int) -> Claimed:
        """Take over entries that have been idle for too long, or set them aside."""
        args = (self._group, self._consumer, self._claim_after, count)
        more = (self._max_deliveries, self._max_length)
        keys = [self._stream, self._aside]
        found, aside, gone = await self._store.script(CLAIM, keys, args + more)
        return Claimed(
            [Entry(_text(each), times, _pairs(flat)) for each, times, flat in found], aside, gone
        )

    async def acknowledge(self, entry: Entry) -> None:
        """Acknowledge an entry: it is handled."""
        await self._store.command("XACK", self._stream, self._group, entry.id)

    async def hold(self, ids: Iterable[str]) -> None:
        """Keep the entries that are being handled from being claimed by others."""
        await self._store.script(HOLD, [self._stream], (self._group, self._consumer, *ids))

    async def leave(self) -> None:
        """Let others claim at once what this consumer holds."""
        args = (self._group, self._consumer, self._claim_after)
        await self._store.script(LEAVE, [self._stream], args)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _pairs(flat: list[Any]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
