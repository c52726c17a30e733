"""
No more calls to a service that fails, until a few probe calls have shown that it works again.

Promise: half-open, exactly ``half_open`` calls get through, however many come; a cancelled call is
not an outcome, and gives its place to another; an open breaker refuses at once. An outcome counts
only in the state in which its call was let through, so that an answer from before says nothing
about the service now.
Cost: two comparisons and a coroutine for a call that succeeds; no task and no timer. With ``slow``
or ``failed``, two readings of the clock, or a call of the function, more.

Here is which calls are let through and what their outcomes are; when the state changes is in
mtaio/_internal/circuit.py. Reasons: docs/en/design/resilience.md.
"""

from __future__ import annotations

import math
import reprlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, final

from mtaio._internal import checks, clock
from mtaio._internal.block import entered_before_error
from mtaio._internal.callables import name_of
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.circuit import BreakerState, Circuit, checked_rules
from mtaio._internal.copies import uncopied
from mtaio._internal.filters import Filter, accepts, check_filter, check_verdict
from mtaio._internal.limiting import unhashable_error
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT, snapshot
from mtaio.exceptions import BreakerOpenError
from mtaio.resilience import _blocks
from mtaio.resilience._events import (
    PartEvent,
    Refused,
    call_listener,
    check_listener,
    emit,
    is_wanted,
)
from mtaio.resilience._part import Call, Next, StandalonePart, is_outcome
from mtaio.resilience._stream import OpenStream

__all__ = ["Breaker", "BreakerBlock", "BreakerChange", "BreakerState", "BreakerStatistics"]

_LOOKS: Final = 100
"""The most states that are looked at to find one that can be forgotten without harm."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatistics:
    """The state and counts of a `Breaker`, all keys together."""

    open: int = field(metadata=GAUGE)
    """Keys that are open now; without ``max_keys``, 1 or 0."""
    half_open: int = field(metadata=GAUGE)
    """Keys that are half-open now; without ``max_keys``, 1 or 0."""
    disabled: int = field(metadata=GAUGE)
    """Keys that are disabled now; without ``max_keys``, 1 or 0."""
    keys: int = field(metadata=GAUGE)
    """Keys with a state of their own; 1 without ``max_keys``."""
    max_keys: int | None = field(metadata=LIMIT)
    """The most keys that may have one; None if all calls share one state."""
    calls: int = field(metadata=COUNTER)
    """Calls let through."""
    failed: int = field(metadata=COUNTER)
    """Calls that were failures."""
    slow: int = field(metadata=COUNTER)
    """Calls that took ``slow`` seconds or longer, failures included."""
    undecided: int = field(metadata=COUNTER)
    """Calls without an outcome: cancelled, refused inside the breaker, or ``on`` raised."""
    rejected: int = field(metadata=COUNTER)
    """Calls refused."""
    opened: int = field(metadata=COUNTER)
    """How often a state became open, also from half-open."""
    recent_calls: int = field(metadata=GAUGE)
    """Calls whose outcomes are remembered now."""
    recent_failed_ratio: float = field(metadata=GAUGE)
    """The share of these that failed; 0 if there are none."""
    recent_slow_ratio: float = field(metadata=GAUGE)
    """The share of these that were slow; 0 if there are none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChange(PartEvent):
    """
    A change of the state of a `Breaker`, passed to ``on_change`` and to all listeners.

    Logged to ``mtaio.resilience``, at WARNING if the breaker opens, otherwise at INFO.
    """

    is_logged: ClassVar[bool] = True

    key: Hashable
    """The key whose state changed; None if the breaker has one state for all calls."""
    before: BreakerState
    """The state before the change."""
    state: BreakerState
    """The state after the change."""
    error: Exception | None
    """The failure that opened the breaker; None for other changes, and if nothing was raised."""
    reason: str = ""
    """Why the breaker opened, such as ``5 calls in a row failed, …``; empty for other changes."""

    def _line(self) -> tuple[str, tuple[object, ...]] | None:
        if self.state is not BreakerState.OPEN:
            return None  # not at WARNING: see `Breaker`
        return "%s is open: %s", (_whose(self), self.reason)


def _whose(change: BreakerChange) -> str:
    """Return the breaker of a change, for the log."""
    name = "a breaker" if change.name is None else f"breaker {change.name!r}"
    return name if change.key is None else f"{name}, key={reprlib.repr(change.key)},"


@final
class BreakerBlock:
    """A block whose outcome counts for a `Breaker`: ``async with breaker as block:``."""

    __slots__ = ("_failed",)

    def __init__(self) -> None:
        self._failed = False

    @property
    def failed(self) -> bool:
        """Whether `mark_failed` was called."""
        return self._failed

    def mark_failed(self) -> None:
        """
        Report that the service failed although nothing was raised.

        Use it for a response, such as HTTP 503, that is not raised as an exception.

        Not a checkpoint.
        """
        self._failed = True


class _BlockOfKey:
    """What ``async with breaker.block(key)`` enters, once."""

    __slots__ = ("_began", "_begin", "_block", "_circuit", "_end", "_key", "_period")

    def __init__(
        self,
        key: Hashable,
        begin: Callable[[Hashable], Awaitable[Circuit]],
        end: Callable[..., None],
    ) -> None:
        self._key = key
        self._begin = begin
        self._end = end
        self._circuit: Circuit | None = None
        self._block: BreakerBlock | None = None

    async def __aenter__(self) -> BreakerBlock:
        if self._circuit is not None:
            raise entered_before_error(self, "Make one for each block: breaker.block().")
        self._circuit = circuit = await self._begin(self._key)
        self._period = circuit.period
        self._began = clock.now()
        self._block = block = BreakerBlock()
        return block

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block, self._block = self._block, None  # left once: an outcome counts once
        if block is not None:
            seconds = clock.now() - self._began
            self._end(self._circuit, self._period, exc, seconds, failed=block.failed)


@final
@uncopied
class Breaker(StandalonePart):
    """
    A circuit breaker: refuses calls to a failing service and probes it until it recovers.

    While closed, it lets all calls through and remembers the outcomes of the ``last`` ones. It
    opens if ``failure_ratio`` of them failed, if ``consecutive`` calls in a row failed, or if
    ``slow_ratio`` of them were slow. While open, it refuses calls with
    `mtaio.exceptions.BreakerOpenError`. After ``open_for`` seconds it is half-open: it lets the
    next ``half_open`` calls through and refuses others until these have ended. If
    ``half_open_ratio`` of them fail or are slow, it opens again; otherwise it closes and forgets
    all outcomes.

    An error that ``on`` does not accept counts as a success, since the service has answered.
    Cancellations and refusals by inner parts (`mtaio.exceptions.LimitError`) are not outcomes. A
    call that never ends has no outcome either, so put a timeout inside.

    Use it as a part of a `Pipeline` or by itself: ``breaker.run(fn)``, ``@breaker``, ``async with
    breaker``, ``async with breaker.block(key)``. It can be created at module level and used by one
    event loop after another. One refused call in 64 is a checkpoint.

    Args:
        failure_ratio: Share of the remembered calls that must fail to open it, more than 0 and at
            most 1.
        last: Number of calls to remember, at least 1.
        min_calls: Number of calls that must have ended before a ratio can open it; None for half of
            ``last``.
        consecutive: Number of failures in a row that open it, regardless of ``min_calls`` and the
            ratio; None for no such rule. ``Breaker(1, consecutive=5)`` has only this rule.
        slow: Seconds after which a call, failed or not, counts as slow; None for no such rule.
        slow_ratio: Share of the remembered calls that must be slow to open it, more than 0 and at
            most 1.
        open_for: Seconds for which it stays open; ``inf`` until it is reset.
        half_open: Number of calls that probe the service after that, at least 1.
        half_open_ratio: Share of the probes that must fail to open it again, at most 1; 0 means
            that a single failure does. None for the value of ``failure_ratio``.
        failed: A function that is called with the result of each call that raises nothing, and
            returns whether the result is a failure, such as a response with status 503. None if no
            result is. Streams have no result.
        on: Exceptions that count as failures: a class, a tuple of classes, or a function from the
            exception to bool. An exception group counts if every exception in it does; a function
            is called with each.
        max_keys: None for one state for all calls. With a number, every key has a state of its own,
            and calls must have a ``key`` (see `Pipeline.run`). If there are more keys, the least
            recently used one is forgotten, preferably one that is closed; to refuse new keys
            instead, use `Keyed`.
        on_change: A plain function that is called with a `BreakerChange` at each change, in the
            task that caused it. Errors that it raises are logged.
        name: Name shown in messages and metrics.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import anyio

        from mtaio import Breaker, Pipeline
        from mtaio.exceptions import BreakerOpenError

        api = Pipeline(Breaker(0.5, last=10), name="api")


        async def fetch() -> str:
            raise ConnectionError("nobody there")


        async def main() -> None:
            for _ in range(7):
                try:
                    await api.run(fetch)
                except (ConnectionError, BreakerOpenError) as error:
                    print(error)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _only is the state of all calls; None if each key has one, in _circuits, the one used
    #   longest ago first;
    # - _open, _half_open and _disabled are how many of these are in that state.
    __slots__ = (
        "__weakref__",
        "_calls",
        "_circuits",
        "_disabled",
        "_failed",
        "_half_open",
        "_max_keys",
        "_name",
        "_on",
        "_on_change",
        "_only",
        "_open",
        "_opened",
        "_rejected",
        "_rules",
        "_slow",
        "_undecided",
        "_verdict",
    )

    kind: ClassVar[Literal["breaker"]] = "breaker"
    needs_timeout: ClassVar[bool] = True

    def __init__(
        self,
        failure_ratio: float = 0.5,
        *,
        last: int = 20,
        min_calls: int | None = None,
        consecutive: int | None = None,
        slow: float | None = None,
        slow_ratio: float = 0.5,
        open_for: float = 30.0,
        half_open: int = 1,
        half_open_ratio: float | None = None,
        failed: Callable[[Any], object] | None = None,
        on: Filter = Exception,
        max_keys: int | None = None,
        on_change: Callable[[BreakerChange], object] | None = None,
        name: str | None = None,
    ) -> None:
        self._rules = checked_rules(
            failure_ratio,
            last=last,
            min_calls=min_calls,
            consecutive=consecutive,
            slow=slow,
            slow_ratio=slow_ratio,
            open_for=open_for,
            half_open=half_open,
            half_open_ratio=half_open_ratio,
        )
        check_filter(on)
        if failed is not None:
            check_verdict("failed", failed)
        if max_keys is not None:
            checks.count(
                "max_keys",
                max_keys,
                way_out="Pass how many keys may have a state, or None for one state for all.",
            )
        if on_change is not None:
            check_listener("on_change", on_change, BreakerChange)
        self._verdict = failed
        self._on = on
        self._max_keys = max_keys
        self._on_change = on_change
        self._name = name
        self._circuits: OrderedDict[Hashable, Circuit] = OrderedDict()
        self._only = self._new_circuit(None) if max_keys is None else None
        self._open = 0
        self._half_open = 0
        self._disabled = 0
        self._calls = 0
        self._failed = 0
        self._slow = 0
        self._undecided = 0
        self._rejected = 0
        self._opened = 0

    def __str__(self) -> str:
        rules = self._rules
        options = f"{rules.failure_ratio}, last={rules.last}, open_for={rules.open_for}"
        if rules.consecutive is not None:
            options += f", consecutive={rules.consecutive}"
        if rules.slow != math.inf:
            options += f", slow={rules.slow:g}, slow_ratio={rules.slow_ratio}"
        if self._max_keys is not None:
            options += f", max_keys={self._max_keys}"
        return f"Breaker({options})"

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        if self._only is not None:
            return f"<Breaker{name}: {self._only.state}>"
        return (
            f"<Breaker{name}: {len(self._circuits)} keys, {self._open} open, "
            f"{self._half_open} half-open>"
        )

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def needs_key(self) -> bool:
        """Whether each key has its own state, so that every call needs a key."""
        return self._max_keys is not None

    @property
    def idle(self) -> bool:
        """Whether no state is open, forced open or disabled."""
        circuits = (self._only,) if self._only is not None else self._known()
        return not any(circuit.limits for circuit in circuits)

    @property
    def state(self) -> BreakerState:
        """
        The current state; if each key has its own, that of ``key=None``.

        An open breaker becomes half-open with the first call after ``open_for`` seconds, not
        before.
        """
        return self.state_of(None)

    def state_of(self, key: Hashable) -> BreakerState:
        """
        Return the state of a key, which need not be known.

        Not a checkpoint.
        """
        circuit = self._only or self._circuits.get(key)
        return BreakerState.CLOSED if circuit is None else circuit.state

    def force_open(self, key: Hashable = None) -> None:
        """
        Refuse all calls until `reset` is called.

        Calls in progress continue, but their outcomes no longer count. Not a checkpoint.

        Args:
            key: The key, if each key has its own state.

        Raises:
            ValueError: Each key has its own state, and ``key`` is missing.
        """
        self._meant(key).open(math.inf, "force_open() was called")

    def reset(self, key: Hashable = None) -> None:
        """
        Close the breaker and forget all outcomes.

        Not a checkpoint.

        Args:
            key: The key, if each key has its own state.

        Raises:
            ValueError: Each key has its own state, and ``key`` is missing.
        """
        self._meant(key).close()

    def disable(self, key: Hashable = None) -> None:
        """
        Let all calls through, without counting outcomes, until `reset` is called.

        Not a checkpoint.

        Args:
            key: The key, if each key has its own state.

        Raises:
            ValueError: Each key has its own state, and ``key`` is missing.
        """
        self._meant(key).disable()

    def block(self, key: Hashable = None) -> AbstractAsyncContextManager[BreakerBlock, None]:
        """
        Return a block that counts as a call: ``async with breaker.block(key) as block:``.

        Without a key, this is the same as ``async with breaker as block:``. An exception that
        leaves the block is its outcome; otherwise it is a success, unless it was marked as failed.

        Args:
            key: The key of the call, such as a host; needed if each key has its own state.

        Raises:
            ValueError: Each key has its own state, and ``key`` is missing.
        """
        if key is None and self._only is None:
            raise self._keyless_error()
        return _BlockOfKey(key, self._begin, self._end)

    async def __aenter__(self) -> BreakerBlock:
        """
        Start a block that counts as a call, and whose end is its outcome.

        Returns:
            The block, with which a failure that raises nothing can be reported.

        Raises:
            BreakerOpenError: The breaker lets no call through.
            ValueError: Each key has its own state: use `block`.
        """
        circuit = self._only
        if circuit is None:
            raise self._keyless_error()
        if circuit.state is not BreakerState.CLOSED and not circuit.admit():
            await self._refuse(circuit, None)
        self._calls += 1
        block = BreakerBlock()
        _blocks.enter(self, (block, circuit.period, clock.reader()()))
        return block

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Count the outcome of the block. Not a checkpoint.

        Raises:
            RuntimeError: A block that was entered later has not been left yet, or the block was
                entered in another context.
        """
        noted: tuple[BreakerBlock, int, float] | None = _blocks.leave(self, exc_type)
        circuit = self._meant(None)
        if noted is None:  # which one it was is not known: at most one more call probes
            self._undecided += 1
            circuit.give_back(circuit.period)
            return
        block, period, began = noted
        seconds = clock.reader()() - began
        if exc is not None or block.failed or seconds >= self._rules.slow_from or not circuit.clean:
            self._end(circuit, period, exc, seconds, failed=block.failed)

    def statistics(self) -> BreakerStatistics:
        """
        Return a snapshot of the breaker.

        Not a checkpoint. It can be called from any thread.
        """
        circuits = [self._only] if self._only is not None else self._known()
        seen = sum([circuit.seen for circuit in circuits])
        return snapshot(
            BreakerStatistics,
            self,
            keys=len(circuits),
            recent_calls=seen,
            recent_failed_ratio=sum([circuit.failures for circuit in circuits]) / max(seen, 1),
            recent_slow_ratio=sum([circuit.slow for circuit in circuits]) / max(seen, 1),
        )

    def wrap(self, then: Next) -> Next:
        """Return an async function that calls ``then`` if the breaker lets it through."""
        only = self._only
        closed = BreakerState.CLOSED
        slow, verdict = self._rules.slow_from, self._verdict

        async def run(call: Call) -> Any:
            circuit = only or self._circuit_of(call.key)
            if circuit.state is not closed and not circuit.admit():
                await self._refuse(circuit, call)
            self._calls += 1
            period = circuit.period
            try:
                result = await then(call)
            except BaseException as error:
                self._end(circuit, period, error, 0.0)
                raise
            if not circuit.clean:
                circuit.succeed(period)
            return result

        async def run_judged(call: Call) -> Any:
            circuit = only or self._circuit_of(call.key)
            if circuit.state is not closed and not circuit.admit():
                await self._refuse(circuit, call)
            self._calls += 1
            period = circuit.period
            began = clock.reader()()
            try:
                result = await then(call)
            except BaseException as error:
                self._end(circuit, period, error, clock.now() - began)
                raise
            seconds = clock.reader()() - began
            failed = verdict is not None and self._is_failure(result, circuit, period)
            if failed or seconds >= slow or not circuit.clean:
                self._end(circuit, period, None, seconds, failed=failed)
            return result

        return run if slow == math.inf and verdict is None else run_judged

    def wrap_stream(self, then: Next) -> Next:
        """
        Return an async function that opens a stream with ``then``; its end is the outcome.

        Its duration is the time until the first item, since the rest depends on the consumer.
        """
        only = self._only

        async def run(call: Call) -> OpenStream:
            circuit = only or self._circuit_of(call.key)
            if circuit.state is not BreakerState.CLOSED and not circuit.admit():
                await self._refuse(circuit, call)
            self._calls += 1
            period = circuit.period
            began = clock.now()
            try:
                opened: OpenStream = await then(call)
            except BaseException as error:
                self._end(circuit, period, error, clock.now() - began)
                raise
            seconds = clock.now() - began
            opened.on_end(lambda error: self._end(circuit, period, error, seconds))
            return opened

        return run

    async def _begin(self, key: Hashable) -> Circuit:
        """Let a block begin, or refuse it, and return its circuit."""
        circuit = self._only or self._circuit_of(key)
        if circuit.state is not BreakerState.CLOSED and not circuit.admit():
            await self._refuse(circuit, None)
        self._calls += 1
        return circuit

    def _end(
        self,
        circuit: Circuit,
        period: int,
        error: BaseException | None,
        seconds: float,
        *,
        failed: bool = False,
    ) -> None:
        """
        Count the outcome of a call or block.

        Args:
            circuit: What let it through.
            period: When.
            error: What it raised, or None.
            seconds: How long it took, if it may have been slow.
            failed: Whether it failed although it raised nothing.
        """
        failure: Exception | None = None
        if error is not None:
            if not is_outcome(error):
                self._undecided += 1
                circuit.give_back(period)
                return
            try:
                failed = failed or accepts(self._on, error)
            except BaseException:  # a probe must not keep its place because ``on`` is wrong
                self._undecided += 1
                circuit.give_back(period)
                raise
            failure = error
        self._slow += seconds >= self._rules.slow_from
        if failed:
            self._failed += 1
            circuit.fail(period, failure, seconds)
        else:
            circuit.succeed(period, seconds)

    def _is_failure(self, result: object, circuit: Circuit, period: int) -> bool:
        """Return what ``failed`` says of a result."""
        verdict: Any = self._verdict
        try:
            return bool(verdict(result))
        except BaseException:  # as where ``on`` is wrong
            self._undecided += 1
            circuit.give_back(period)
            raise

    async def _refuse(self, circuit: Circuit, call: Call | None) -> None:
        """Raise the error for a call that is not let through."""
        left = 0.0
        if circuit.state is BreakerState.HALF_OPEN:
            way_out = f"It waits for its probe calls ({self._rules.half_open}) to end."
        elif circuit.until == math.inf:
            left, way_out = math.inf, "reset() closes it."
        else:
            left = circuit.left()
            way_out = f"The next call is let through in {left:.3g} s."
        key = "" if self._only is not None else f" for key={reprlib.repr(circuit.key)}"
        msg = f"{self!r} refuses the call{key}: {circuit.reason}. {way_out}"
        self._rejected += 1
        if not self._rejected % FAST_CALLS:
            await checkpoint()
        error = BreakerOpenError(msg, retry_after=left, name=self._name)
        if is_wanted(Refused):
            function = None if call is None else name_of(call.fn)
            emit(Refused(name=self._name, function=function, error=error))
        raise error

    def _new_circuit(self, key: Hashable) -> Circuit:
        return Circuit(self._rules, key, self._changed)

    def _keyless_error(self) -> ValueError:
        msg = f"{self!r} has a state for each key. Pass the key: block(key)."
        return ValueError(msg)

    def _meant(self, key: Hashable) -> Circuit:
        """Return the state to change by hand."""
        if key is None and self._only is None:
            msg = f"{self!r} has a state for each key. Pass the one to change: key=..."
            raise ValueError(msg)
        return self._only or self._circuit_of(key)

    def _circuit_of(self, key: Hashable) -> Circuit:
        """Return the state for a key; make it if there is none."""
        circuits = self._circuits
        try:
            circuit = circuits.get(key)
        except TypeError as error:
            raise unhashable_error(key, error) from error
        if circuit is not None:
            circuits.move_to_end(key)
            return circuit
        if len(circuits) == self._max_keys:
            self._forget_one()
        circuit = circuits[key] = self._new_circuit(key)
        return circuit

    def _forget_one(self) -> None:
        """Forget the closed state that was used longest ago; another one if none is found soon."""
        circuits = self._circuits
        for _ in range(min(len(circuits), _LOOKS)):
            key, circuit = next(iter(circuits.items()))
            if circuit.state is BreakerState.CLOSED:
                break
            circuits.move_to_end(key)  # the next new key looks at others first
        _, forgotten = circuits.popitem(last=False)
        self._count(forgotten.state, -1)
        forgotten.retire()

    def _known(self) -> list[Circuit]:
        """Return the states of all keys, from any thread."""
        circuits = self._circuits
        return [each for each in map(circuits.get, list(circuits)) if each is not None]

    def _count(self, state: BreakerState, by: int) -> None:
        if state is BreakerState.OPEN:
            self._open += by
        elif state is BreakerState.HALF_OPEN:
            self._half_open += by
        elif state is BreakerState.DISABLED:
            self._disabled += by

    def _changed(self, circuit: Circuit, before: BreakerState, error: Exception | None) -> None:
        """Count a change of the state, and report it."""
        if circuit.state is before:
            return  # it was set by hand to what it was
        self._count(before, -1)
        self._count(circuit.state, 1)
        if circuit.state is BreakerState.OPEN:
            self._opened += 1
        change = BreakerChange(
            name=self._name,
            key=circuit.key,
            before=before,
            state=circuit.state,
            error=error,
            reason=circuit.reason if circuit.state is BreakerState.OPEN else "",
        )
        emit(change)
        if circuit.state is not BreakerState.OPEN:
            from logging import getLogger  # noqa: PLC0415 - dear to import, and changes are few

            getLogger("mtaio.resilience").info("%s is %s", _whose(change), circuit.state)
        if self._on_change is not None:
            call_listener(self._on_change, change)
