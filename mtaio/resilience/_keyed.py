"""
A part for each key: a breaker per host, a limiter per customer.

Promise: the part of a key is made on first use, and all calls with that key go through it. At most
``max_keys`` are held. None is forgotten while a call is in it, or while it limits somebody: a new
one would be milder. If there is no room, a new key is refused. A factory that raises changes
nothing.
Cost: two look-ups and a coroutine for each call, besides what the part costs. A new key looks at
the parts that were used longest ago, `_LOOKS` at most.
"""

from __future__ import annotations

import reprlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final, Generic, TypeVar, final
from weakref import WeakSet

from mtaio._internal import checks
from mtaio._internal.callables import is_async, name_of
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.durations import record_durations_of
from mtaio._internal.limiting import unhashable_error
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT, PARTS, add_counts, snapshot, total
from mtaio.exceptions import LimitError
from mtaio.resilience._adapters import as_part, is_part, name_of_kind
from mtaio.resilience._events import Refused, emit, is_wanted
from mtaio.resilience._part import Call, Next, Part, StandalonePart, call_function
from mtaio.resilience._stream import OpenStream, stream_through

__all__ = ["Keyed", "KeyedStatistics"]

PartT = TypeVar("PartT")

_LOOKS: Final = 100
"""The most parts that are looked at to make room for one key."""

_SIGNS: Final = ("waiting", "in_use", "in_flight", "held_seconds")
"""What statistics say of a part that is in use, or that keeps somebody waiting."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedStatistics:
    """The state of a `Keyed`, and what it and its parts have done so far."""

    keys: int = field(metadata=GAUGE)
    """Keys that have a part now."""
    max_keys: int = field(metadata=LIMIT)
    """The most keys that may have one."""
    in_flight: int = field(metadata=GAUGE)
    """Calls that have not ended."""
    made: int = field(metadata=COUNTER)
    """Parts made."""
    forgotten: int = field(metadata=COUNTER)
    """Parts forgotten to make room for others."""
    rejected: int = field(metadata=COUNTER)
    """Calls refused because there was no room for their key."""
    parts: dict[str, Any] = field(metadata=PARTS)
    """
    The statistics of all parts together, under their kind: ``"breaker"``. Counts are sums, also of
    parts that were forgotten; of durations, ratios and peaks it is the greatest.
    """


class _Entry:
    """The part of one key."""

    __slots__ = ("given", "in_flight", "key", "part")

    def __init__(self, key: Hashable, given: object, part: Part) -> None:
        self.key = key
        self.given = given
        self.part = part
        self.in_flight = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody would notice if it were made anew, but for what it has counted."""
        if self.in_flight:
            return False
        says: object = getattr(self.part, "idle", None)
        if says is not None:
            return bool(says)
        return _is_at_rest(self.statistics())

    def leave(self, _: BaseException | None) -> None:
        """Note that a stream has ended."""
        self.in_flight -= 1

    @property
    def kind(self) -> str:
        """Under which name its part's statistics are shown."""
        return name_of_kind(self.given, self.part)

    def statistics(self) -> Any:
        """Return those of its part; None if it has none."""
        read = getattr(self.part, "statistics", None)
        return None if read is None else read()


def _wrapped(part: Part, then: Next) -> Next:
    return part.wrap(then)


def _is_at_rest(now: Any) -> bool:
    """Return whether statistics say that nobody waits, nothing is taken, and each bucket full."""
    if any(getattr(now, name, 0) for name in _SIGNS):
        return False
    if getattr(now, "tokens", 0) < getattr(now, "burst", 0):
        return False
    if not is_dataclass(now):
        return True
    values = [getattr(now, each.name) for each in fields(now)]
    inner = [each for value in values for each in _several(value)]
    return all(_is_at_rest(each) for each in inner if is_dataclass(each))


def _several(value: Any) -> list[Any]:
    """Return the values of a mapping, or the value itself."""
    if isinstance(value, Mapping):
        return list(value.values())  # pyright: ignore[reportUnknownArgumentType] - of any type
    return [value]


class _Way:
    """What is inside of a `Keyed` in one pipeline, and the parts that are wrapped around it."""

    # Invariant: wrapped has no part that is not held any more.
    __slots__ = ("__weakref__", "_around", "_check", "_checked", "_then", "wrapped")

    def __init__(
        self,
        then: Next,
        check: Callable[[Part], object] | None,
        around: Callable[[Part, Next], Next],
    ) -> None:
        self._around = around
        self._then = then
        self._check = check
        self._checked: set[object] = set()
        self.wrapped: dict[_Entry, Next] = {}

    def wrap(self, entry: _Entry) -> Next:
        """Wrap a part that is called here for the first time."""
        part = entry.part
        kind = getattr(part, "kind", "")
        if self._check is not None and kind not in self._checked:
            self._check(part)
            self._checked.add(kind)
        through = self.wrapped[entry] = self._around(part, self._then)
        return through


@final
@uncopied
class Keyed(StandalonePart, Generic[PartT]):
    """
    A part of a pipeline that keeps a separate part for each key, such as a breaker per host.

    Each call goes through the part of its key, which is created on first use. Any kind of part can
    be kept per key: breakers, limiters, timeouts, retries. Every call needs a key: pass ``key=`` to
    `Pipeline`, to its `run`, or to a decorator.

    When ``max_keys`` parts are held, the least recently used one is forgotten to make room for
    another. A part is kept if a call is in it or if it currently limits somebody: an open breaker,
    a rate limiter that is not full, a limiter with a slot taken. If all of the hundred least
    recently used parts are to be kept, the call is refused with `mtaio.exceptions.LimitError`.

    The rules for the order of parts are checked with the first part that is created, in the first
    call.

    It may also be used by itself: ``keyed.run(fn, key=host)``, ``@keyed(key=...)``. It can be
    created at module level and used by one event loop after another. One refused call in 64 is a
    checkpoint.

    Args:
        factory: A function that is called with a key and returns its part: a part, a limiter, a
            `Retry`, or whatever else a pipeline takes. If it raises, so does the call, and nothing
            is kept.
        max_keys: Maximum number of keys to hold, at least 1.
        name: Name shown in messages and metrics.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import anyio

        from mtaio import Breaker, Pipeline, Timeout
        from mtaio.resilience import Keyed

        hosts = Keyed(
            lambda host: Breaker(consecutive=5, name=f"api {host}"), max_keys=1000
        )
        api = Pipeline(hosts, Timeout(1), key=lambda host, *_: host)


        @api
        async def fetch(host: str, path: str) -> str:
            return f"{host}{path}"


        async def main() -> None:
            print(await fetch("eu.example.com", "/"))
            print(hosts.part("eu.example.com").state)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _entries has the part of each key, the one used longest ago first, but that those which
    #   could not be forgotten when they were looked at have gone to the end;
    # - _past has, by the kind of the parts, what those counted that were forgotten.
    __slots__ = (
        "__weakref__",
        "_alone",
        "_entries",
        "_factory",
        "_forgotten",
        "_kind",
        "_made",
        "_max_keys",
        "_name",
        "_past",
        "_records",
        "_rejected",
        "_ways",
    )

    needs_key: bool = True

    def __init__(
        self, factory: Callable[[Any], PartT], *, max_keys: int = 1000, name: str | None = None
    ) -> None:
        way_out = "Pass a function from a key to its part, such as lambda host: Breaker()."
        checks.callable_("factory", factory, way_out=way_out)
        if not isinstance(factory, type) and is_part(factory):
            msg = f"factory={factory!r} is itself a part, the same for all keys. {way_out}"
            raise TypeError(msg)
        if is_async(factory):
            msg = f"factory={factory!r} is an async function and would not be awaited. {way_out}"
            raise TypeError(msg)
        checks.count("max_keys", max_keys, way_out="Pass how many keys may have a part.")
        self._factory = factory
        self._max_keys = max_keys
        self._name = name
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._ways: WeakSet[_Way] = WeakSet()
        self._past: dict[str, dict[str, Any]] = {}
        self._kind: str | None = None
        self._made = 0
        self._forgotten = 0
        self._rejected = 0
        self._records = False
        self._alone = self._wrap(call_function, None)

    def __str__(self) -> str:
        return f"Keyed({name_of(self._factory)}, max_keys={self._max_keys})"

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<Keyed{name}: {len(self._entries)} of {self._max_keys} keys>"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def kind(self) -> str | None:
        """The kind of the part created last, for the rules of order; None if unknown."""
        return self._kind

    def part(self, key: Hashable) -> PartT:
        """
        Return the part of a key, which is created if there is none.

        A part that is used directly may be forgotten in the meantime, since its calls are not known
        here; the key then gets another part.

        Not a checkpoint.

        Args:
            key: The key.

        Raises:
            LimitError: The key is new, and there is no room for it.
            TypeError: ``key`` is not hashable, or what the factory returned is not a part.
        """
        part: Any = self._entry(key).given
        given: PartT = part
        return given

    def hold(self, key: Hashable, seconds: float) -> None:
        """
        Make the part of one key grant nothing for a while.

        The part must have a method ``hold``, as rate limiters do (see
        `mtaio.resources.RateLimiter`). ``Retry(throttled=..., hold=keyed)`` calls it with the key
        of a call that was refused.

        Not a checkpoint.

        Args:
            key: The key.
            seconds: Seconds to pause.

        Raises:
            LimitError: The key is new, and there is no room for it.
            TypeError: The part has no method ``hold``.
        """
        part: Any = self.part(key)
        if not hasattr(part, "hold"):
            msg = f"{part!r} has no hold(). Only a Keyed of limiters can be held."
            raise TypeError(msg)
        part.hold(seconds)

    def held_keys(self) -> list[Hashable]:
        """
        Return the keys that have a part.

        Not a checkpoint. It can be called from any thread.
        """
        return list(self._entries)

    def record_durations(self) -> None:
        """
        Make the parts of all keys record durations from now on, if they can.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint.
        """
        self._records = True
        for entry in self._held():
            record_durations_of(entry.part)

    def statistics(self) -> KeyedStatistics:
        """
        Return a snapshot of all keys together.

        Not a checkpoint. It can be called from any thread.
        """
        entries = self._held()
        snapshots: dict[str, list[Any]] = {}
        for entry in entries:
            statistics = entry.statistics()
            if is_dataclass(statistics):
                snapshots.setdefault(entry.kind, []).append(statistics)
        return snapshot(
            KeyedStatistics,
            self,
            keys=len(entries),
            in_flight=sum([entry.in_flight for entry in entries]),
            parts={kind: total(each, self._past.get(kind, {})) for kind, each in snapshots.items()},
        )

    def statistics_for(self, key: Hashable) -> Any:
        """
        Return the statistics of the part of one key; None if there are none.

        It does not count as a use of the key, and creates no part. Not a checkpoint. It can be
        called from any thread.

        Args:
            key: The key.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        entry = self._entries.get(key)
        return None if entry is None else entry.statistics()

    def wrap(self, then: Next, check: Callable[[Part], object] | None = None) -> Next:
        """Return an async function that calls ``then`` through the part of the call's key."""
        if then is call_function and check is None:
            return self._alone  # and not another one for each `run`
        return self._wrap(then, check)

    def wrap_stream(self, then: Next, check: Callable[[Part], object] | None = None) -> Next:
        """Return an async function that opens a stream with ``then`` through its key's part."""
        way = self._new_way(then, check, stream_through)

        async def run(call: Call) -> OpenStream:
            entry = self._use(call.key) or await self._admit(call)
            through = way.wrapped.get(entry) or way.wrap(entry)
            entry.in_flight += 1
            try:
                opened: OpenStream = await through(call)
            except BaseException:
                entry.in_flight -= 1
                raise
            opened.on_end(entry.leave)
            return opened

        return run

    def _wrap(self, then: Next, check: Callable[[Part], object] | None) -> Next:
        way = self._new_way(then, check, _wrapped)
        entries, wrapped = self._entries, way.wrapped

        async def run(call: Call) -> Any:
            key = call.key
            try:  # as in _use, which would cost each call another frame
                entry = entries.get(key)
            except TypeError as error:
                raise unhashable_error(key, error) from error
            if entry is None:
                entry = await self._admit(call)
            else:
                entries.move_to_end(key)
            through = wrapped.get(entry) or way.wrap(entry)
            entry.in_flight += 1
            try:
                return await through(call)
            finally:
                entry.in_flight -= 1

        return run

    def _new_way(
        self,
        then: Next,
        check: Callable[[Part], object] | None,
        around: Callable[[Part, Next], Next],
    ) -> _Way:
        way = _Way(then, check, around)
        self._ways.add(way)
        return way

    def _use(self, key: Hashable) -> _Entry | None:
        """Return the entry of a key, which is now the one used last; None if there is none."""
        try:
            entry = self._entries.get(key)
        except TypeError as error:
            raise unhashable_error(key, error) from error
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    async def _admit(self, call: Call) -> _Entry:
        """Return the entry of a new key, for a call."""
        try:
            return self._entry(call.key)
        except LimitError as error:
            if not self._rejected % FAST_CALLS:
                await checkpoint()
            if is_wanted(Refused):
                emit(Refused(name=self._name, function=name_of(call.fn), error=error))
            raise

    def _entry(self, key: Hashable) -> _Entry:
        """Return the entry of a key; make it if there is none."""
        entries = self._entries
        entry = self._use(key)
        if entry is not None:
            return entry
        self._forgettable(key)  # raises before anything is made
        given = self._factory(key)
        part = as_part(given)
        oldest = self._forgettable(key)
        if oldest is not None:
            self._forget(oldest)
        if self._records:
            record_durations_of(part)
        entry = entries[key] = _Entry(key, given, part)
        self._made += 1
        self._kind = getattr(part, "kind", "")
        return entry

    def _forgettable(self, key: Hashable) -> _Entry | None:
        """
        Return the entry that has to be forgotten before there is room; None if there is room.

        Raises:
            LimitError: None of those used longest ago can be.
        """
        entries = self._entries
        if len(entries) < self._max_keys:
            return None
        for _ in range(min(len(entries), _LOOKS)):
            oldest = next(iter(entries.values()))
            if oldest.is_idle:
                return oldest
            entries.move_to_end(oldest.key)  # the next new key looks at others first
        self._rejected += 1
        msg = (
            f"{self!r} has no room for key={reprlib.repr(key)}: the parts of all other keys are in "
            f"use, or are limiting calls. Raise max_keys, or try again later."
        )
        raise LimitError(msg, name=self._name)

    def _forget(self, entry: _Entry) -> None:
        del self._entries[entry.key]
        for way in list(self._ways):
            way.wrapped.pop(entry, None)
        add_counts(self._past.setdefault(entry.kind, {}), entry.statistics())
        self._forgotten += 1

    def _held(self) -> list[_Entry]:
        """Return the entries, from any thread."""
        entries = self._entries
        return [each for each in map(entries.get, list(entries)) if each is not None]
