"""
Several limits that a request takes together, for each of many keys: API keys, tenants, models.

Promise: each key has a `Quota` of its own, so that no task waits because of another key; never more
than ``max_keys`` are held, and forgetting one never grants more: only idle ones are, with all
limits full, nothing held, and nobody waiting or in a block.
Cost: one look-up on top of the quota's; some three kilobytes for each key held.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar, final

from mtaio._internal import checks
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import Decorator
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import closed_error, limit_through
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio.exceptions import LimitClosedError, RateLimitError
from mtaio.resources._keys import Keys
from mtaio.resources._quota import Quota, check_limits, limits_of
from mtaio.resources._quota_part import Cost, QuotaPart, Used
from mtaio.resources._rate import Tally
from mtaio.resources._shares import QuotaStatistics, Shares
from mtaio.resources._taken import Taken

if TYPE_CHECKING:
    from mtaio.resources._taken import Grant

__all__ = ["KeyedQuota", "KeyedQuotaStatistics"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedQuotaStatistics:
    """The state and counts of a `KeyedQuota`, all keys together."""

    keys: int = field(metadata=GAUGE)
    """Keys held now."""
    max_keys: int | None = field(metadata=LIMIT)
    """The most keys that may be held; None for no limit."""
    forgotten: int = field(metadata=COUNTER)
    """Keys forgotten so far, because they were idle."""
    rejected_keys: int = field(metadata=COUNTER)
    """Requests refused so far because ``max_keys`` were held and none could be forgotten."""
    waiting: int = field(metadata=GAUGE)
    """Tasks waiting."""
    acquired: int = field(metadata=COUNTER)
    """Requests granted so far, with or without a wait, whatever they took."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused: by ``acquire_nowait``, as a limit was lowered while they waited, or as the
    quota was closed."""
    timed_out: int = field(metadata=COUNTER)
    """Requests that could not be granted within their own timeout, or before their deadline."""
    cancelled: int = field(metadata=COUNTER)
    """Requests cancelled while they waited."""
    wait_seconds: float = field(metadata=COUNTER)
    """Total seconds that tasks waited for what they got."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """The longest of those waits, in seconds."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""


class _Kept:
    """What is kept of a key."""

    __slots__ = ("limits", "quota")

    def __init__(self, quota: Quota, tally: Tally) -> None:
        self.quota = quota
        self.limits = limits_of(quota)
        self.limits.count_in(tally)

    def idle_from(self, moment: float) -> float:
        return self.limits.idle_from(moment)


class _OfKey:
    """The quota of a key for one request, found when it takes: see `Takes`."""

    __slots__ = ("_key", "_keyed", "_limits")

    def __init__(self, keyed: KeyedQuota, key: Hashable, model: Shares) -> None:
        self._keyed = keyed
        self._key = key
        self._limits = model

    def __repr__(self) -> str:
        return f"{self._limits!r} for key={reprlib.repr(self._key)}"

    async def grant(self, costs: tuple[float, ...], timeout: float | None) -> Grant:
        self._limits, grant = await take(self._keyed, self._key, costs, timeout)
        return grant

    def note_in_flight(self, costs: tuple[float, ...], sign: int) -> None:
        self._limits.note_in_flight(costs, sign)

    def correct(self, grant: Grant, before: tuple[float, ...], after: tuple[float, ...]) -> None:
        self._limits.correct(grant, before, after)

    def costs(self, cost: Mapping[str, float], *, default: tuple[float, ...]) -> tuple[float, ...]:
        return self._limits.costs(cost, default=default)

    def describe(self, costs: tuple[float, ...]) -> str:
        return self._limits.describe(costs)


@uncopied
@final
class KeyedQuota:
    """
    Several limits taken together for each key: every tenant has a `Quota` of its own.

    Keys are independent. A key is idle when its limits are full, no pause is in force, and no task
    waits for it or is in one of its blocks. After ``idle_ttl`` seconds an idle key is forgotten,
    with what the server has said of its limits; other keys are kept. When ``max_keys`` keys are
    held, the key that has been idle longest is forgotten to make room for a new one; if none is
    idle, the new key is refused.

    It can be created at module level and used by one event loop after another, on either backend.

    Args:
        per: As for `Quota`.
        start: As for `Quota`, for each new key.
        window: As for `Quota`.
        max_keys: Maximum number of keys to hold, at least 1; None for no limit.
        idle_ttl: Seconds to keep an idle key; ``inf`` to keep it until it has to make room.
        name: Name shown in messages and metrics.
        **limits: Each a number, for every ``per`` seconds, or a pair of a number and a period of
            its own in seconds. Limiters are refused, since all keys would share them; take from
            them separately.

    Raises:
        TypeError: As for `Quota`; or ``max_keys`` is not an int, or a limit is a limiter.
        ValueError: As for `Quota`; or ``max_keys`` < 1, or ``idle_ttl`` < 0.

    Example:
        ```python
        import anyio

        from mtaio.resources import KeyedQuota

        quotas = KeyedQuota(requests=120, tokens=40_000, per=60)


        async def ask(tenant: str) -> None:
            async with quotas.take(tenant, tokens=900) as taken:
                taken.settle(tokens=350)
            print(tenant, quotas.statistics_for(tenant).limits["tokens"].used)


        if __name__ == "__main__":
            anyio.run(ask, "acme")
        ```
    """

    # Invariants:
    # - _model has the limits of every key and is never used, hence as good as new;
    # - _tally and _acquired count for all keys, also those that were forgotten.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_calls",
        "_closed",
        "_keys",
        "_model",
        "_name",
        "_tally",
    )

    def __init__(
        self,
        *,
        per: float = 1.0,
        start: float = 1.0,
        window: bool = False,
        max_keys: int | None = 10_000,
        idle_ttl: float = 60.0,
        name: str | None = None,
        **limits: float | tuple[float, float],
    ) -> None:
        check_limits(limits)
        make: Callable[[], Quota] = partial(
            Quota, per=per, start=start, window=window, name=name, **limits
        )
        self._model = make()
        self._tally = Tally()
        self._name = name
        self._acquired = 0
        self._calls = 0
        self._closed = False
        self._keys: Keys[_Kept] = Keys(lambda: _Kept(make(), self._tally), max_keys, idle_ttl)

    def __repr__(self) -> str:
        return f"<KeyedQuota{repr(self._model).removeprefix('<Quota')[:-1]} keys={len(self._keys)}>"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of the limits, in their order."""
        return self._model.limits

    def take(self, key: Hashable, *, timeout: float | None = None, **cost: float) -> Taken:
        """
        Return a block, for ``async with``, that starts when a request of ``key`` has what it needs.

        Args:
            key: The key; compared like the keys of a dict.
            timeout: Maximum seconds to wait; None for no limit. See `Quota.acquire`.
            **cost: As for `Quota.take`.

        Raises:
            TypeError, ValueError: As for `Quota.take`; entering the block raises what `acquire`
                raises.
        """
        checks.timeout("timeout", timeout)
        kept = self._keys.get(key)
        limits = limits_of(self._model) if kept is None else kept.limits
        costs = limits.costs(cost, default=limits.ones)
        return Taken(_OfKey(self, key, limits), costs, timeout)

    async def acquire(self, key: Hashable, *, timeout: float | None = None, **cost: float) -> None:
        """
        Take from each limit of ``key``, after waiting until there is enough of each.

        A checkpoint if it has to wait, and otherwise at least on every 64th call. If it is
        cancelled, it has taken nothing.

        Args:
            key: The key; compared like the keys of a dict.
            timeout: Maximum seconds to wait; None for no limit. See `Quota.acquire`.
            **cost: As for `Quota.acquire`.

        Raises:
            RateLimitError: The key is new, ``max_keys`` keys are held and none is idle; raised at
                once, with the seconds until one may be in ``retry_after``. Or as for
                `Quota.acquire`.
            LimitTimeoutError, LimitClosedError, ValueError, RuntimeError: As for `Quota.acquire`.
            TypeError: ``key`` is not hashable, or as for `Quota.acquire`.
        """
        checks.timeout("timeout", timeout)
        limits = limits_of(self._model)
        await self._take(key, limits.costs(cost, default=limits.ones), timeout)

    def acquire_nowait(self, key: Hashable, **cost: float) -> None:
        """
        Take from each limit of ``key`` if there is enough and no task waits, or raise.

        Not a checkpoint.

        Args:
            key: The key; compared like the keys of a dict.
            **cost: As for `Quota.acquire`.

        Raises:
            RateLimitError: There is not enough; ``retry_after`` has the seconds until there is. Or
                the key is new and refused, as by `acquire`.
            LimitClosedError: The quota is closed.
            TypeError, ValueError: As for `acquire`.
        """
        self._quota(key).acquire_nowait(**cost)
        self._acquired += 1

    def try_acquire(self, key: Hashable, **cost: float) -> bool:
        """
        Take from each limit of ``key`` as `acquire_nowait` does, and return whether it did.

        Not a checkpoint.

        Raises:
            LimitClosedError: The quota is closed.
            TypeError, ValueError: As for `acquire_nowait`.
        """
        try:
            self.acquire_nowait(key, **cost)
        except RateLimitError:
            return False
        return True

    def part(
        self, *, timeout: float | None = None, used: Used | None = None, **cost: Cost
    ) -> QuotaPart:
        """
        Return a part for a `mtaio.resilience.Pipeline`, as `Quota.part` does; its calls need a key.

        Args:
            timeout: As for `Quota.part`.
            used: As for `Quota.part`.
            **cost: As for `Quota.part`.

        Raises:
            TypeError, ValueError: As for `Quota.part`.
        """
        self._model.part(timeout=timeout, used=used, **cost)  # refuses what it would
        return QuotaPart(self, cost, used, timeout, needs_key=True)

    def __call__(
        self,
        /,
        *,
        key: Callable[..., Hashable],
        timeout: float | None = None,
        used: Used | None = None,
        **cost: Cost,
    ) -> Decorator:
        """
        Decorate an async function or method so that each call takes what it costs first.

        ``@quotas(key=lambda user, *_: user.id, tokens=estimate)``. The function keeps its name,
        signature and types.

        Args:
            key: A function that is called with the arguments of each call, including ``self``, and
                returns the key.
            timeout: As for `Quota.part`.
            used: As for `Quota.part`.
            **cost: As for `Quota.part`.

        Raises:
            TypeError: ``key`` is not callable, what is decorated is not an async function, or as
                for `part`.
            ValueError: As for `part`.
        """
        way_out = (
            "Pass a plain function that takes the arguments of the decorated one and returns the "
            "key."
        )
        checks.callable_("key", key, way_out=way_out)
        part = self.part(timeout=timeout, used=used, **cost)
        decorator: Decorator = limit_through(None, part.call, name="KeyedQuota", key=key)
        return decorator

    def hold(self, key: Hashable, seconds: float) -> None:
        """
        Grant nothing to ``key`` for a while, as `Quota.hold` does.

        Other keys are not affected. Not a checkpoint. It can be called from any thread.

        Args:
            key: The key.
            seconds: Seconds to pause, such as the service's ``Retry-After``; 0 or more.

        Raises:
            RateLimitError: The key is new and refused, as by `acquire`.
            LimitClosedError: The quota is closed.
            TypeError, ValueError: As for `Quota.hold`; or ``key`` is not hashable.
        """
        self._quota(key).hold(seconds)

    def observe(
        self,
        key: Hashable,
        *,
        limit: Mapping[str, float] | None = None,
        remaining: Mapping[str, float] | None = None,
        reset: Mapping[str, float] | None = None,
    ) -> None:
        """
        Adjust to what the server says about the limits of ``key``, as `Quota.observe` does.

        Not a checkpoint. It can be called from any thread.

        Args:
            key: The key.
            limit: As for `Quota.observe`.
            remaining: As for `Quota.observe`.
            reset: As for `Quota.observe`.

        Raises:
            RateLimitError: The key is new and refused, as by `acquire`.
            LimitClosedError: The quota is closed.
            TypeError, ValueError: As for `Quota.observe`; or ``key`` is not hashable.
        """
        self._quota(key).observe(limit=limit, remaining=remaining, reset=reset)

    def close(self) -> None:
        """
        Refuse everything from now on, for all keys, as `Quota.close` does.

        A closed quota cannot be reopened, and holds no keys. Not a checkpoint. It can be called
        from any thread.
        """
        self._closed = True
        for kept in self._keys.clear():
            kept.quota.close()

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._tally.wait_times.record()

    def statistics(self) -> KeyedQuotaStatistics:
        """
        Return a snapshot of all keys together.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(
            KeyedQuotaStatistics,
            self,
            self._tally,
            self._tally.wait_times,
            self._keys,
            keys=len(self._keys),
        )

    def statistics_for(self, key: Hashable) -> QuotaStatistics:
        """
        Return a snapshot of one key; for a key that is not held, that of a new key.

        The counts of requests that waited or were refused are those of all keys. It does not count
        as a use of the key, which is neither added nor kept longer. Not a checkpoint. It can be
        called from any thread.

        Args:
            key: The key.

        Raises:
            TypeError: ``key`` is not hashable.
        """
        kept = self._keys.get(key)
        return (self._model if kept is None else kept.quota).statistics()

    async def _take(
        self, key: Hashable, costs: tuple[float, ...], timeout: float | None
    ) -> tuple[Shares, Grant]:
        """Take of the limits of ``key``, after a checkpoint if it is time for one."""
        self._calls += 1
        if self._calls >= FAST_CALLS:
            self._calls = 0
            self._keys.sweep()
            await checkpoint()
        limits = limits_of(self._quota(key))
        limits.check(costs)
        grant = await limits.grant(costs, timeout)
        self._acquired += 1
        return limits, grant

    def _quota(self, key: Hashable) -> Quota:
        """
        Return the quota of ``key``, which is added if it is not held.

        Raises:
            RateLimitError: The key is new, and there is no room for it.
            LimitClosedError: The quota is closed.
            TypeError: ``key`` cannot be hashed.
        """
        if self._closed:
            self._tally.count_refusal(LimitClosedError)
            raise closed_error(self, self._name)
        return self._keys.admit(key, self).quota


take = KeyedQuota._take  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
"""What the blocks of a `KeyedQuota` do."""
