"""
The events of an emitter, sent to other processes and received from them, over a stream.

Promise: an event is delivered to each group at least once. It is acknowledged when its handlers
have finished, and until then it survives the processes that hold it. One that fails repeatedly is
set aside. Nothing outlives the block, and what a cancelled block had not finished goes to others.
Cost: one command to send; to receive, one read for as many events as are handled in about 50 ms, up
to 64, and one acknowledgment each.
Why a stream and not pub/sub: docs/en/design/redis.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any, Final, final
from uuid import uuid4

import anyio

from mtaio import events
from mtaio._internal import checks, clock
from mtaio._internal.statistics import COUNTER, GAUGE, snapshot
from mtaio.events import EventKey
from mtaio.exceptions import StoreError
from mtaio.redis import _store as stores
from mtaio.redis._codec import JSON, Codec, check_codec, encoded
from mtaio.redis._entries import GroupStream
from mtaio.redis._outage import Backoff
from mtaio.redis._store import Store, tasks_of_block

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from mtaio.events import Event
    from mtaio.redis._entries import Entry
    from mtaio.redis._store import Connection

__all__ = ["Bridge", "BridgeStatistics", "bridge"]

_BATCH: Final = 64
"""The most entries that are read or claimed at once."""

_AHEAD: Final = 0.05
"""Seconds of work for which entries are read ahead: no other consumer can have them then."""

_WAIT: Final = 1.0
"""The most seconds that a read waits at the server."""

_PAUSES: Final = (0.1, 2.0)
"""Seconds between two attempts while the server is down: at first, and at most."""

_STREAM_ID: Final = "stream_id"
_DELIVERIES: Final = "deliveries"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeStatistics:
    """What a `Bridge` has done."""

    sent: int = field(metadata=COUNTER)
    """Events added to the stream."""
    received: int = field(metadata=COUNTER)
    """Deliveries: events read from the stream or claimed, counted each time."""
    claimed: int = field(metadata=COUNTER)
    """Those of `received` that another consumer, or this one before, had not acknowledged."""
    handled: int = field(metadata=COUNTER)
    """Events whose handlers finished without an error."""
    failed: int = field(metadata=COUNTER)
    """Deliveries whose handlers failed, or that could not be decoded."""
    set_aside: int = field(metadata=COUNTER)
    """Events that this consumer set aside, because they had been delivered too often."""
    lost: int = field(metadata=COUNTER)
    """Events that were dropped from the stream before they were acknowledged, because it had grown
    too long."""
    server_failures: int = field(metadata=COUNTER)
    """Calls to the server that failed."""
    in_flight: int = field(metadata=GAUGE)
    """Events received and not finished."""


@asynccontextmanager
async def bridge(
    emitter: events.EventEmitter,
    store: Store,
    *,
    stream: str,
    group: str | None = None,
    forward: Collection[str | EventKey[Any]] = (),
    codec: Codec[Any] = JSON,
    limit: int = 1,
    max_length: int = 100_000,
    claim_after: float = 30.0,
    max_deliveries: int = 5,
    from_start: bool = True,
) -> AsyncGenerator[Bridge]:
    """
    Connect an emitter to a stream on the server, as an ``async with`` block.

    With a ``group``, the block receives: each event of the stream goes to one consumer of the
    group, which emits it on ``emitter``, with ``stream_id`` and ``deliveries`` in its metadata, and
    acknowledges it when the handlers have finished. If a handler fails or the process dies, the
    event stays with the group and is delivered again after ``claim_after`` seconds. A handler may
    therefore see an event twice, with the same ``stream_id``. An emitter with ``errors="log"``
    hides errors, so that its events count as handled.

    When the block is left or cancelled, its handlers are cancelled. Events that are already handled
    are still acknowledged, and the others are given back, so that other consumers get them at once;
    each of the two takes no longer than the store's timeout. While the server is down, the block
    keeps trying.

    Args:
        emitter: The emitter whose handlers are called.
        store: The server, which must be entered.
        stream: Name of the stream.
        group: The group whose consumers share the events; None to only send.
        forward: Names and patterns, as for `EventEmitter.on`. Events that are emitted in this
            process under them are also sent to the stream, and `EventEmitter.emit` returns or fails
            when that is done. Events that came from a stream are not sent. With a ``group`` too,
            handlers here run twice for such an event: at once, and when it comes back from the
            stream.
        codec: Converts the data of events to bytes and back.
        limit: Maximum number of events that this consumer handles at once; with 1, in the order of
            the stream.
        max_length: Approximate number of events to keep in the stream. The oldest are dropped, even
            if a group has not read them yet.
        claim_after: Seconds without a sign of life after which a process's events go to others, and
            seconds after which a failed event is tried again. It may be shorter than a handler
            takes.
        max_deliveries: Number of times an event is delivered before it is set aside, in a stream
            with the same name and the suffix ``:aside``.
        from_start: Whether a new group starts with the events that are already in the stream. A
            group that is deleted while the block receives starts again with all of them.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A name is empty, or a number is out of range.
        RuntimeError: The store is not entered.
        BaseException: What handlers raised that is not an ``Exception``; their events stay with the
            group.

    Example:
        ```python
        import anyio

        from mtaio import EventEmitter
        from mtaio.events import Event
        from mtaio.redis import RedisStore, bridge

        emitter = EventEmitter()
        paid = anyio.Event()


        @emitter.on("order.paid")
        def ship(event: Event[dict[str, int]]) -> None:
            print("shipping order", event.data["id"])
            paid.set()


        async def main() -> None:
            async with RedisStore("redis://127.0.0.1:6379/0") as store:
                async with bridge(
                    emitter, store, stream="orders", group="shipping"
                ) as remote:
                    await remote.send("order.paid", {"id": 7})
                    await paid.wait()


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """
    stores.check_store(store)
    way_out = "Pass a name that the processes share."
    stores.name("stream", stream, way_out=way_out)
    if group is not None:
        stores.name("group", group, way_out=way_out)
    check_codec(codec)
    checks.flag("from_start", from_start)
    checks.count("limit", limit, way_out="Pass how many events to handle at once.")
    checks.count("max_length", max_length, way_out="Pass how many events to keep.")
    checks.count("max_deliveries", max_deliveries, way_out="Pass how often to deliver an event.")
    checks.positive(
        "claim_after", claim_after, way_out="Pass the seconds after which others take over."
    )
    if isinstance(forward, str | EventKey):
        msg = f"forward={forward!r} is one name, not several. Pass [{forward!r}]."
        raise TypeError(msg)
    stores.check_entered(store)
    entries = GroupStream(
        store,
        stream,
        group or "",
        uuid4().hex,
        max_length=max_length,
        claim_after=claim_after,
        max_deliveries=max_deliveries,
        start="0" if from_start else "$",
    )
    made = Bridge(emitter, store, entries, codec, name=f"{stream}/{group}" if group else stream)
    patterns = [*dict.fromkeys(_name_of(each) for each in forward)]
    with ExitStack() as listening:
        for number, pattern in enumerate(patterns):
            handler = partial(made._forward, patterns[:number])  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
            emitter.on(pattern, handler)
            listening.callback(emitter.off, pattern, handler)
        async with tasks_of_block() as tasks:
            if group is not None:
                tasks.start_soon(made._receive, limit, claim_after)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
            yield made


@final
class Bridge:
    """A connection between an emitter and a stream, as yielded by `bridge`."""

    # Invariant: _in_flight has the entries that were received and are neither handled nor failed.
    __slots__ = (
        "_claimed",
        "_codec",
        "_emitter",
        "_entries",
        "_failed",
        "_handled",
        "_in_flight",
        "_lost",
        "_name",
        "_received",
        "_sent",
        "_server_failures",
        "_set_aside",
        "_store",
    )

    def __init__(
        self,
        emitter: events.EventEmitter,
        store: Store,
        entries: GroupStream,
        codec: Codec[Any],
        *,
        name: str,
    ) -> None:
        self._emitter = emitter
        self._store = store
        self._entries = entries
        self._codec = codec
        self._name = name
        self._in_flight: dict[str, Entry] = {}
        self._sent = self._received = self._claimed = self._handled = self._failed = 0
        self._set_aside = self._lost = self._server_failures = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} at {self._store.name}>"

    @property
    def name(self) -> str:
        """Names of the stream and the group."""
        return self._name

    async def send(
        self,
        name: str | EventKey[Any],
        data: Any = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """
        Add an event to the stream, without emitting it in this process.

        A checkpoint. If it is cancelled or raises `StoreError`, the event may or may not have been
        added.

        Args:
            name: Full name of the event, or an `EventKey`.
            data: Anything that the codec can encode.
            metadata: A mapping of names to values that JSON can express.

        Returns:
            The id of the event in the stream.

        Raises:
            StoreError: The server is down.
            TypeError, ValueError: ``name`` is not the full name of an event.
            Exception: What the codec raised.
        """
        full = _name_of(name)
        if "*" in full:
            msg = (
                f"name={full!r} is a pattern: it can be listened to, not emitted. Pass the full "
                f"name of one event."
            )
            raise ValueError(msg)
        fields: dict[str, bytes | str] = {
            "name": full,
            "data": encoded(self._codec, data),
        }
        if metadata:
            fields["metadata"] = json.dumps(dict(metadata))
        added = await self._entries.add(fields)
        self._sent += 1
        return added

    def statistics(self) -> BridgeStatistics:
        """
        Return a snapshot of the bridge.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(BridgeStatistics, self, in_flight=len(self._in_flight))

    async def _forward(self, others: list[str], event: Event[Any]) -> None:
        """Send an event, unless it came from a stream, or an earlier pattern has sent it."""
        if _STREAM_ID not in event.metadata and not any(
            _matches(other, event.name) for other in others
        ):
            await self.send(event.name, event.data, metadata=event.metadata)

    async def _receive(self, limit: int, claim_after: float) -> None:
        """Receive events until cancelled."""
        sender, receiver = anyio.create_memory_object_stream[Any](0)
        try:
            async with tasks_of_block() as tasks, sender, receiver:
                for _ in range(limit):
                    tasks.start_soon(self._handle_all, receiver)
                tasks.start_soon(self._hold, claim_after / 3)
                await self._read_always(sender, claim_after / 2)
        finally:
            with anyio.CancelScope(shield=True), suppress(StoreError):
                await self._entries.leave()

    async def _read_always(self, sender: MemoryObjectSendStream[Any], look: float) -> None:
        pauses = Backoff(*_PAUSES)
        while True:
            try:
                await self._entries.join()
                async with self._store.dedicated() as connection:
                    pauses.reset()
                    await self._read(connection, sender, look)
            except StoreError as error:
                self._server_failures += 1
                pause = pauses.next()
                getLogger("mtaio.redis").warning(
                    "%r cannot receive, and tries again in %g s: %s", self, pause, error
                )
                await anyio.sleep(pause)

    async def _read(
        self, connection: Connection, sender: MemoryObjectSendStream[Any], look: float
    ) -> None:
        """Hand entries to the tasks that handle them, as long as the server answers."""
        next_look = -math.inf
        count = 1
        while True:
            if clock.now() >= next_look:
                claimed = await self._entries.claim(_BATCH)
                self._set_aside += claimed.aside
                self._lost += claimed.gone
                if claimed.aside:
                    getLogger("mtaio.redis").error(
                        "%r has set %d events aside: they had been delivered too often.",
                        self,
                        claimed.aside,
                    )
                entries = [entry for entry in claimed.entries if entry.id not in self._in_flight]
                self._claimed += len(entries)
                if len(claimed.entries) + claimed.aside + claimed.gone < _BATCH:
                    next_look = clock.now() + look
            else:
                wait = min(_WAIT, max(0.001, next_look - clock.now()))
                entries = await self._entries.read(connection, count, wait)
            self._received += len(entries)
            self._in_flight |= {entry.id: entry for entry in entries}
            start = clock.now()
            for entry in entries:
                await sender.send(entry)
            if clock.now() - start >= _AHEAD:
                count = max(1, count // 2)
            elif len(entries) >= count:
                count = min(2 * count, _BATCH)

    async def _handle_all(self, receiver: MemoryObjectReceiveStream[Any]) -> None:
        while True:
            entry = await receiver.receive()
            try:
                await self._handle(entry)
            finally:
                self._in_flight.pop(entry.id, None)

    async def _handle(self, entry: Entry) -> None:
        try:
            name = entry.fields[b"name"].decode()
            data = self._codec.decode(entry.fields[b"data"])
            metadata: Mapping[str, Any] = json.loads(entry.fields.get(b"metadata", b"{}"))
            told = {**metadata, _STREAM_ID: entry.id, _DELIVERIES: entry.deliveries}
            await self._emitter.emit(name, data, metadata=told)
        except Exception:
            self._failed += 1
            getLogger("mtaio.redis").exception(
                "%r: event %s failed on delivery %d", self, entry.id, entry.deliveries
            )
            return
        self._handled += 1
        try:
            with anyio.CancelScope(shield=True):  # it is handled, and must not be again
                await self._entries.acknowledge(entry)
        except StoreError as error:
            self._server_failures += 1
            getLogger("mtaio.redis").warning(
                "%r: event %s was handled and will be delivered again: %s", self, entry.id, error
            )

    async def _hold(self, period: float) -> None:
        """Keep others from claiming what is in flight."""
        while True:
            await anyio.sleep(period)
            if self._in_flight:
                try:
                    await self._entries.hold([*self._in_flight])
                except StoreError:
                    self._server_failures += 1


def _name_of(name: str | EventKey[Any]) -> str:
    """Return the name of a key, or a name that a key can have."""
    return (name if isinstance(name, EventKey) else EventKey[Any](name)).name


def _matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches the name of an event."""
    return pattern in {"*", name} or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
