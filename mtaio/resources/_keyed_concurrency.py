"""
How much may run at once for each of many keys: hosts, tenants, accounts.

Promise: every key has slots of its own, so that no task waits because of another key. A key is held
as long as a task has one of its slots or waits for one, and is forgotten in that moment; never more
than ``max_keys`` are held.
Cost: one look-up and one lock on top of the limiter's; nothing for a key that is not used.

Each key that is held has a `ConcurrencyLimiter`, which does all the waiting. What is counted here
is who uses it: a user is a task from before it asks for a slot to after it has given it back, or
has given up. So a limiter that is found is kept until its last user has gone, and a key never has
two. That needs a lock, since slots may be taken and given back in any thread, and a user has to be
counted in the step in which the limiter is found.
"""

from __future__ import annotations

import reprlib
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, final

from mtaio._internal import checks
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import Decorator
from mtaio._internal.durations import WaitTimes
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import check_key, closed_error, limit_by, run_in
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio.exceptions import ConcurrencyLimitError, LimitError, LimitTimeoutError
from mtaio.resources._concurrency import ConcurrencyLimiter

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["KeyConcurrencyStatistics", "KeyedConcurrencyLimiter", "KeyedConcurrencyStatistics"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SPARE: Final = 16
"""So many limiters without a key are kept: the next key takes one, instead of making another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedConcurrencyStatistics:
    """The state and counts of a `KeyedConcurrencyLimiter`, all keys together."""

    limit: int = field(metadata=LIMIT)
    """The number of slots of each key."""
    keys: int = field(metadata=GAUGE)
    """Keys held now: those with a slot in use, or a task that waits for one."""
    max_keys: int | None = field(metadata=LIMIT)
    """The most keys that may be held; None for no limit."""
    rejected_keys: int = field(metadata=COUNTER)
    """Calls refused so far because their key was new and ``max_keys`` were held."""
    in_use: int = field(metadata=GAUGE)
    """Slots taken."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    acquired: int = field(metadata=COUNTER)
    """Slots given out, with or without a wait."""
    rejected: int = field(metadata=COUNTER)
    """Calls refused: by ``acquire_nowait``, or because the queue of their key was full or the
    limiter closed."""
    timed_out: int = field(metadata=COUNTER)
    """Calls whose own timeout ran out."""
    cancelled: int = field(metadata=COUNTER)
    """Calls that were cancelled before they had a slot."""
    wait_seconds: float = field(metadata=COUNTER)
    """Total seconds that tasks waited for the slots they got."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """The longest of those waits, in seconds."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyConcurrencyStatistics:
    """The state of one key of a `KeyedConcurrencyLimiter`."""

    in_use: int = field(metadata=GAUGE)
    """Slots taken."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""


class _KeySlots(ConcurrencyLimiter):  # type: ignore[misc] # final for users
    """
    The limiter of one key.

    Args:
        owner: The limiter of all keys.
        wait_times: Where to count waits.
    """

    # Invariant: `users` counts the tasks that have a slot, wait for one or are about to ask.
    __slots__ = ("key", "users")

    key: Hashable

    def __init__(self, owner: KeyedConcurrencyLimiter, wait_times: WaitTimes) -> None:
        self._start(owner.limit, owner.max_waiting, owner.name, wait_times)
        self.users = 0

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return (
            f"<KeyedConcurrencyLimiter{name} key={reprlib.repr(self.key)}: {self._in_use} of "
            f"{self._limit} slots in use, {len(self._waiters)} waiting>"
        )

    def yield_next(self) -> None:
        """Let the next call of `acquire` yield, however it ends."""
        self._yield_at = self._acquired

    def state(self) -> tuple[int, int]:
        """Return how many slots are in use, and how many tasks wait."""
        return self._in_use - self._returned, len(self._waiters)

    def is_as_new(self) -> bool:
        """Return whether no slot is in use, nor given back in another thread and still counted."""
        return not self._in_use


class _Slot:
    """A slot of one key: a block that may be entered any number of times."""

    __slots__ = ("_key", "_limiter", "_timeout")

    def __init__(
        self, limiter: KeyedConcurrencyLimiter, key: Hashable, timeout: float | None
    ) -> None:
        self._limiter = limiter
        self._key = key
        self._timeout = timeout

    if TYPE_CHECKING:  # to pyright only an ``async def`` begins a block

        async def __aenter__(self) -> None: ...

    else:

        def __aenter__(self) -> Coroutine[Any, Any, None]:
            return self._limiter.acquire(self._key, timeout=self._timeout)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._limiter.release(self._key)


@uncopied
@final
class KeyedConcurrencyLimiter:
    """
    A limit on concurrency for each key: every host, tenant or account has slots of its own.

    Keys are independent: a task that waits for one key does not delay others. A key is held only
    while a task has one of its slots or waits for one. When ``max_keys`` keys are held, a new key
    is refused.

    It can be created at module level and used by one event loop after another, on either backend.
    Slots do not belong to tasks, and may be taken and released in any thread, like those of a
    `ConcurrencyLimiter`.

    Args:
        limit: Number of slots for each key, at least 1.
        max_keys: Maximum number of keys to hold, at least 1; None for no limit.
        max_waiting: Maximum number of tasks that wait for each key; further ones are refused at
            once with `mtaio.exceptions.ConcurrencyLimitError`. 0 for none, None for no limit.
        name: Name shown in messages and metrics.

    Raises:
        ValueError: ``limit`` or ``max_keys`` is less than 1, or ``max_waiting`` is negative.
        TypeError: ``limit``, ``max_keys`` or ``max_waiting`` is not an int.

    Example:
        Two requests at once for each host:

        ```python
        import anyio

        from mtaio import KeyedConcurrencyLimiter

        per_host = KeyedConcurrencyLimiter(2)


        async def fetch(host: str, path: str) -> None:
            async with per_host.slot(host):
                await anyio.sleep(0.01)
                print(host, path)


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for path in ("/a", "/b", "/c"):
                    group.start_soon(fetch, "one.example", path)
                    group.start_soon(fetch, "two.example", path)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - a limiter in _held has at least one user, and no other limiter has any: so a key has one
    #   limiter at most, and one that was found stays there until its user has gone;
    # - who changes _held, _spare or the users of a limiter holds _lock; between finding a limiter
    #   and counting its user nothing is called, so that nothing comes in between in this thread
    #   either, as the garbage collector could by closing a task that waited in a loop that is over;
    # - a limiter in _spare has no users, and no slot in use: it is as good as new;
    # - at least one call in FAST_CALLS sets _yield_due; the call that may yield takes it back.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_calls",
        "_cancelled",
        "_closed",
        "_held",
        "_limit",
        "_lock",
        "_max_keys",
        "_max_waiting",
        "_name",
        "_rejected",
        "_rejected_keys",
        "_spare",
        "_timed_out",
        "_wait_times",
        "_yield_due",
    )

    def __init__(
        self,
        limit: int,
        *,
        max_keys: int | None = 10_000,
        max_waiting: int | None = None,
        name: str | None = None,
    ) -> None:
        ConcurrencyLimiter(limit, max_waiting=max_waiting)  # refuses what it would
        if max_keys is not None:
            way_out = "Pass how many keys may be held at the same time, or None for no limit."
            checks.count("max_keys", max_keys, way_out=way_out)
        self._limit = limit
        self._max_keys = max_keys
        self._max_waiting = max_waiting
        self._name = name
        self._held: dict[Hashable, _KeySlots] = {}
        self._spare: list[_KeySlots] = []
        self._lock = RLock()  # a key's __eq__ may come back here
        self._closed = False
        self._calls = 0
        self._yield_due = False
        self._acquired = 0
        self._rejected = 0
        self._rejected_keys = 0
        self._timed_out = 0
        self._cancelled = 0
        self._wait_times = WaitTimes()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<KeyedConcurrencyLimiter{name} limit={self._limit} keys={len(self._held)}>"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def max_keys(self) -> int | None:
        """Maximum number of keys to hold; None for no limit."""
        return self._max_keys

    @property
    def max_waiting(self) -> int | None:
        """Maximum number of tasks that wait for each key; None for no limit."""
        return self._max_waiting

    @property
    def limit(self) -> int:
        """Number of slots for each key; may be changed like `ConcurrencyLimiter.limit`."""
        return self._limit

    @limit.setter
    def limit(self, slots: int) -> None:
        way_out = "Pass how much may run at once for each key, or 0 to pause."
        checks.count("limit", slots, least=0, way_out=way_out)
        with self._lock:
            if self._closed:
                return
            self._limit = slots
            for each in (*self._held.values(), *self._spare):
                each.limit = slots

    def close(self) -> None:
        """
        Refuse everything from now on, for all keys, as `ConcurrencyLimiter.close` does.

        Tasks that wait, and all later calls, get a `mtaio.exceptions.LimitClosedError` at once.
        Tasks that hold a slot continue and release it as usual. Repeated calls have no effect. Not
        a checkpoint. It can be called from any thread.
        """
        with self._lock:
            self._closed = True
            self._limit = 0
            self._spare.clear()
            for each in self._held.values():
                each.close()

    def slot(
        self, key: Hashable, *, timeout: float | None = None
    ) -> AbstractAsyncContextManager[None, None]:
        """
        Return a context manager that holds a slot of ``key``: ``async with limiter.slot(host):``.

        It may be entered any number of times, also concurrently. Entering it does what `acquire`
        does.

        Args:
            key: The key; compared like the keys of a dict.
            timeout: Maximum seconds to wait; 0 to not wait at all; None for no limit.
        """
        return _Slot(self, key, timeout)

    async def acquire(self, key: Hashable, *, timeout: float | None = None) -> None:
        """
        Take a slot of ``key``; if all are taken, wait behind the tasks that asked for it before.

        A checkpoint if no slot is free, and otherwise on every 64th call. If it is cancelled, it
        holds nothing; a slot that it had just been given goes to the next task.

        Args:
            key: The key; compared like the keys of a dict.
            timeout: Maximum seconds to wait; 0 to not wait at all; None for no limit.

        Raises:
            LimitTimeoutError: No slot was free in time. Also a builtin ``TimeoutError``.
            LimitClosedError: The limiter is closed, or was closed during the wait.
            ConcurrencyLimitError: The queue of this key is full, or the key is new and ``max_keys``
                keys are held.
            TypeError: ``key`` is not hashable.
            ValueError: ``timeout`` is negative or NaN.
            RuntimeError: Tasks of another event loop are waiting for this key.
        """
        try:
            slots = self._enter(key)
        except LimitError:
            if self._yield_due:
                self._yield_due = False
                await checkpoint()
            raise
        if self._yield_due:
            self._yield_due = False
            slots.yield_next()
        try:
            await slots.acquire(timeout=timeout)
        except BaseException as error:
            self._give_up(slots, error)
            raise
        self._acquired += 1

    def acquire_nowait(self, key: Hashable) -> None:
        """
        Take a slot of ``key`` if one is free, or raise.

        Not a checkpoint. It can be called from any thread.

        Args:
            key: The key.

        Raises:
            ConcurrencyLimitError: All slots are taken, or the key is refused, as by `acquire`.
            LimitClosedError: The limiter is closed.
            TypeError: ``key`` is not hashable.
        """
        slots = self._enter(key)
        try:
            slots.acquire_nowait()
        except BaseException as error:
            self._give_up(slots, error)
            raise
        self._acquired += 1

    def try_acquire(self, key: Hashable) -> bool:
        """
        Take a slot of ``key`` if one is free, and return whether it did.

        Not a checkpoint. It can be called from any thread.

        Raises:
            LimitClosedError: The limiter is closed.
            TypeError: ``key`` is not hashable.
        """
        try:
            self.acquire_nowait(key)
        except ConcurrencyLimitError:
            return False
        return True

    def release(self, key: Hashable) -> None:
        """
        Release a slot of ``key``, and hand it to the first task that waits for one.

        Not a checkpoint. It can be called from any thread.

        Args:
            key: The key.

        Raises:
            RuntimeError: No slot of the key is in use.
            TypeError: ``key`` is not hashable.
        """
        with self._lock:
            try:
                slots = self._held.get(key)
            except TypeError:
                check_key(key)
                raise  # of the key's own __eq__
            if slots is None:
                msg = (
                    f"cannot release a slot of key={reprlib.repr(key)}: {self!r} has none of it in "
                    f"use. Call release() once for each acquire(), with the same key."
                )
                raise RuntimeError(msg)
            slots.release()
            self._leave(slots)

    async def run(
        self,
        fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T],
        /,
        *args: *Ts,
        key: Hashable,
    ) -> T:
        """
        Call ``fn(*args)`` in a slot of ``key`` and return its result.

        A checkpoint if `acquire` or the call is one. If it is cancelled while it waits, it holds
        nothing and ``fn`` is not called.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            key: The key; compared like the keys of a dict.

        Raises:
            ConcurrencyLimitError, LimitClosedError: As for `acquire`.
            TypeError: ``fn`` did not return an awaitable. Or ``key`` is not hashable.
            RuntimeError: Tasks of another event loop are waiting for this key.
        """
        return await run_in(self.slot(key), fn, args)

    def __call__(
        self, /, *, key: Callable[..., Hashable], timeout: float | None = None
    ) -> Decorator:
        """
        Decorate an async function or method so that each call holds a slot.

        ``@limiter(key=lambda url: url.host)``. The function keeps its name, signature and types.

        Args:
            key: A function that is called with the arguments of each call, including ``self``, and
                returns the key.
            timeout: Maximum seconds to wait; 0 to not wait at all; None for no limit.

        Raises:
            TypeError: ``key`` is not callable, or what is decorated is not an async function.
            ValueError: ``timeout`` is negative or NaN.
        """
        way_out = (
            "Pass a plain function that takes the arguments of the decorated one and returns the "
            "key."
        )
        checks.callable_("key", key, way_out=way_out)
        checks.timeout("timeout", timeout)

        def acquire(key: Hashable) -> Coroutine[Any, Any, None]:
            return self.acquire(key, timeout=timeout)

        return limit_by(key, acquire, self.release, name="KeyedConcurrencyLimiter")

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._wait_times.record()

    def statistics(self) -> KeyedConcurrencyStatistics:
        """
        Return a snapshot of all keys together.

        It takes time in proportion to the number of keys held.

        Not a checkpoint. It can be called from any thread.
        """
        with self._lock:
            states = [each.state() for each in self._held.values()]
        return snapshot(
            KeyedConcurrencyStatistics,
            self,
            self._wait_times,
            keys=len(states),
            in_use=sum(in_use for in_use, _ in states),
            waiting=sum(waiting for _, waiting in states),
        )

    def statistics_for(self, key: Hashable) -> KeyConcurrencyStatistics:
        """
        Return a snapshot of one key; all figures are 0 for a key that is not held.

        Not a checkpoint. It can be called from any thread.

        Args:
            key: The key.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        check_key(key)
        slots = self._held.get(key)
        in_use, waiting = (0, 0) if slots is None else slots.state()
        return KeyConcurrencyStatistics(in_use=in_use, waiting=waiting)

    def _enter(self, key: Hashable) -> _KeySlots:
        """
        Return the limiter of ``key``, which is added if it is not held, with one user more.

        Raises:
            ConcurrencyLimitError: The key is new, and there is no room for it.
            LimitClosedError: The limiter is closed, and the key is not held.
            TypeError: ``key`` cannot be hashed.
        """
        self._calls += 1
        if self._calls >= FAST_CALLS:
            self._calls = 0
            self._yield_due = True
        with self._lock:
            try:
                if key in self._held:  # two look-ups, since get() would be a call in between
                    slots = self._held[key]
                    slots.users += 1
                    return slots
            except TypeError:
                check_key(key)
                raise  # of the key's own __eq__
            if self._closed:
                self._rejected += 1
                raise closed_error(self, self._name)
            if self._max_keys is not None and len(self._held) >= self._max_keys:
                self._rejected_keys += 1
                msg = (
                    f"{self!r} has no room for key={reprlib.repr(key)}: max_keys="
                    f"{self._max_keys!r} have a slot in use or a task that waits. Raise max_keys, "
                    f"or try again later."
                )
                raise ConcurrencyLimitError(msg, name=self._name)
            slots = self._spare.pop() if self._spare else _KeySlots(self, self._wait_times)
            slots.key = key
            slots.users = 1
            self._held[key] = slots
            return slots

    def _leave(self, slots: _KeySlots) -> None:
        """Count one user less, and forget the key with the last; with the lock held."""
        slots.users -= 1
        if slots.users:
            return
        del self._held[slots.key]
        if len(self._spare) < _SPARE and slots.is_as_new() and not self._closed:
            slots.key = None
            self._spare.append(slots)

    def _give_up(self, slots: _KeySlots, error: BaseException) -> None:
        """Count a call that got no slot."""
        with self._lock:
            self._leave(slots)
        if isinstance(error, LimitTimeoutError):
            self._timed_out += 1
        elif isinstance(error, LimitError):
            self._rejected += 1
        elif not isinstance(error, Exception):
            self._cancelled += 1
