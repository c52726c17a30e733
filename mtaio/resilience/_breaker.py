"""
No more calls to a service that fails, until a few probe calls have shown that it works again.

Promise: half-open, exactly ``half_open`` calls get through, however many come; a cancelled call is
not an outcome, and gives its place to another; an open breaker refuses at once. An outcome counts
only in the state in which its call was let through, so that an answer from before says nothing
about the service now.
Cost: two comparisons and a coroutine for a call that succeeds; no task and no timer. The outcomes
of the last calls are the bits of one int.

What counts as an outcome, and why it counts calls, not seconds: docs/en/design/resilience.md.
"""

from __future__ import annotations

import math
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal, NamedTuple, cast, final

from mtaio._internal import checks, clock
from mtaio._internal.callables import is_async
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.filters import Filter, accepts, check_filter
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT, snapshot
from mtaio.exceptions import BreakerOpenError
from mtaio.resilience._part import Call, Next, StandalonePart, is_outcome
from mtaio.resilience._stream import OpenStream

__all__ = ["Breaker", "BreakerChange", "BreakerState", "BreakerStatistics"]


class BreakerState(StrEnum):
    """Whether a breaker lets calls through."""

    CLOSED = "closed"
    """All of them."""
    OPEN = "open"
    """None."""
    HALF_OPEN = "half-open"
    """A few, whose outcomes decide."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatistics:
    """The state and counts of a `Breaker`, all keys together."""

    open: int = field(metadata=GAUGE)
    """Keys that are open now; without ``max_keys``, 1 or 0."""
    half_open: int = field(metadata=GAUGE)
    """Keys that are half-open now; without ``max_keys``, 1 or 0."""
    keys: int = field(metadata=GAUGE)
    """Keys with a state of their own; 1 without ``max_keys``."""
    max_keys: int | None = field(metadata=LIMIT)
    """The most keys that may have one; None if all calls share one state."""
    calls: int = field(metadata=COUNTER)
    """Calls let through."""
    failed: int = field(metadata=COUNTER)
    """Calls that were failures."""
    undecided: int = field(metadata=COUNTER)
    """Calls without an outcome: cancelled, refused inside the breaker, or ``on`` raised."""
    rejected: int = field(metadata=COUNTER)
    """Calls refused."""
    opened: int = field(metadata=COUNTER)
    """How often a state became open, also from half-open."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChange:
    """A change of the state of a `Breaker`, which ``on_change`` is called with."""

    name: str | None
    """The breaker's name."""
    key: Hashable
    """The key whose state it is; None for all calls."""
    before: BreakerState
    """The state before the change."""
    state: BreakerState
    """The state after it."""
    error: Exception | None
    """The failure that opened it; None for any other change."""


class _Rules(NamedTuple):
    """When a circuit opens, and how it closes again."""

    failure_ratio: float
    last: int
    min_calls: int
    open_for: float
    half_open: int


class _Circuit:
    """
    The state for one key.

    Args:
        rules: When it opens and closes.
        key: The key, for `changed`.
        changed: Called with the circuit, the state before and the error after each change.
    """

    # Invariants:
    # - _outcomes has a bit for each of the last `_seen` calls of this period, 1 for a failure, the
    #   lowest for the latest; they are `_most` at most: `last`, or what may probe;
    # - each change of the state begins another period, in which no earlier call's outcome counts;
    # - half-open, _free + calls under way + outcomes == half_open: hence all have been seen when
    #   _seen has come to _most;
    # - `clean` says that a success would change nothing: closed, and none of the `last` failed.
    __slots__ = (
        "_changed",
        "_free",
        "_most",
        "_outcomes",
        "_rules",
        "_seen",
        "clean",
        "key",
        "period",
        "reason",
        "state",
        "timed_by",
        "until",
    )

    def __init__(
        self,
        rules: _Rules,
        key: Hashable,
        changed: Callable[[_Circuit, BreakerState, Exception | None], object],
    ) -> None:
        self._rules = rules
        self._changed = changed
        self._outcomes = 0
        self._seen = 0
        self._most = rules.last
        self._free = 0
        self.key = key
        self.state: BreakerState = BreakerState.CLOSED
        self.period: int = 0
        self.clean: bool = False
        self.until: float = math.inf
        """When an open circuit lets a call through again."""
        self.timed_by: clock.Tells = clock.REAL
        """The clock of ``until``."""
        self.reason: str = ""
        """Why it is open, for messages."""

    def admit(self) -> bool:
        """Return whether a call may go through, and give it a place; not called while closed."""
        if self.state is BreakerState.OPEN:
            if clock.catch_up(self) < self.until:
                return False
            self._free = self._rules.half_open
            self._change(BreakerState.HALF_OPEN)
        if not self._free:
            return False
        self._free -= 1
        return True

    def succeed(self, period: int) -> None:
        """Count a success of a call that was let through in ``period``."""
        if period != self.period:
            return
        self._count(failed=0)
        if self.state is BreakerState.HALF_OPEN and self._seen == self._most:
            self.close()

    def fail(self, period: int, error: Exception) -> None:
        """Count a failure of a call that was let through in ``period``."""
        if period != self.period:
            return
        self._count(failed=1)
        rules = self._rules
        failures = self._outcomes.bit_count()
        if self.state is BreakerState.CLOSED:
            calls, due = self._seen, self._seen >= rules.min_calls
            text = f"{failures} of the last {calls} calls failed"
        else:
            calls, due = rules.half_open, True
            text = f"{failures} of {self._seen} calls that were to probe it failed"
        if due and failures / calls >= rules.failure_ratio:
            self._open(rules.open_for, f"{text}, the latest with {type(error).__name__}", error)
        elif self.state is BreakerState.HALF_OPEN and self._seen == self._most:
            self.close()

    def give_back(self, period: int) -> None:
        """Give back the place of a call that was let through in ``period``: it has no outcome."""
        if period == self.period and self.state is BreakerState.HALF_OPEN:
            self._free += 1

    def force_open(self) -> None:
        """Open it until it is closed by hand."""
        self._open(math.inf, "force_open() was called", None)

    def close(self) -> None:
        """Close it, and forget every outcome."""
        self._change(BreakerState.CLOSED)

    def left(self) -> float:
        """Return in how many seconds an open circuit lets a call through again."""
        return max(self.until - clock.now_by(self.timed_by), 0.0)

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self.until += seconds

    def retire(self) -> None:
        """Let no outcome count any more: the circuit is forgotten."""
        self.period += 1

    def _count(self, *, failed: int) -> None:
        most = self._most
        self._outcomes = (self._outcomes << 1 | failed) & ((1 << most) - 1)
        self._seen = min(self._seen + 1, most)
        self.clean = not self._outcomes and self._seen == most and self.state is BreakerState.CLOSED

    def _open(self, seconds: float, reason: str, error: Exception | None) -> None:
        self.until = clock.catch_up(self) + seconds
        self.reason = reason
        self._change(BreakerState.OPEN, error)

    def _change(self, state: BreakerState, error: Exception | None = None) -> None:
        before, self.state = self.state, state
        self.period += 1
        self._outcomes = self._seen = 0
        probing = state is BreakerState.HALF_OPEN
        self._most = self._rules.half_open if probing else self._rules.last
        self.clean = False
        self._changed(self, before, error)


@final
@uncopied
class Breaker(StandalonePart):
    """
    Refuses calls to a service that fails, and lets a few through at times to see if it works.

    Closed, it lets every call through and remembers the outcomes of the ``last``. When
    ``failure_ratio`` of them are failures it opens: calls are refused with
    `mtaio.exceptions.BreakerOpenError`. After ``open_for`` seconds it is half-open: the next
    ``half_open`` calls get through, and the others are refused until these have ended. If as large
    a ratio of them fails, it opens again; otherwise it closes, with nothing remembered.

    An error that ``on`` does not accept is a success: the service has answered. A cancellation is
    not an outcome, nor is a refusal by something inside, a `mtaio.exceptions.LimitError`. Only a
    call that ends has an outcome, so put a timeout inside.

    A part of a `Pipeline`, or by itself: ``breaker.run(fn)``, ``@breaker``. May be made at module
    level, and used by one event loop after another. One refused call in 64 is a checkpoint.

    Args:
        failure_ratio: The share of the calls that must fail, more than 0 and at most 1.
        last: How many calls are remembered, at least 1.
        min_calls: How many must have ended before it may open; None for half of ``last``.
        open_for: Seconds for which it stays open; ``inf`` until it is closed by hand.
        half_open: How many calls probe the service after that, at least 1.
        on: Which exceptions are failures: a class, a tuple of classes, or a function from the
            exception to bool. A group of exceptions counts if each of them does, and a function is
            called with each.
        max_keys: None for one state for all calls. With a number, each ``key`` of `Pipeline.run`,
            which is then required, has a state of its own; of more keys than that, the least
            recently used is forgotten.
        on_change: A plain function, called with a `BreakerChange` at each change, in the task that
            caused it. What it raises is logged.
        name: For error messages.

    Raises:
        ValueError, TypeError: An argument is refused; the message names it and the way out.

    Example:
        ```python
        import anyio

        from mtaio.exceptions import BreakerOpenError
        from mtaio.resilience import Breaker, Pipeline

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
    # - _open and _half_open are how many of these are in that state.
    __slots__ = (
        "__weakref__",
        "_calls",
        "_circuits",
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
        "_undecided",
    )

    kind: ClassVar[Literal["breaker"]] = "breaker"
    needs_timeout: ClassVar[bool] = True

    def __init__(
        self,
        failure_ratio: float = 0.5,
        *,
        last: int = 20,
        min_calls: int | None = None,
        open_for: float = 30.0,
        half_open: int = 1,
        on: Filter = Exception,
        max_keys: int | None = None,
        on_change: Callable[[BreakerChange], object] | None = None,
        name: str | None = None,
    ) -> None:
        way_out = "Pass the share of the calls that must fail, more than 0 and at most 1."
        checks.number("failure_ratio", failure_ratio, way_out=way_out)
        if not 0 < failure_ratio <= 1:
            msg = f"failure_ratio={failure_ratio!r} is not a ratio. {way_out}"
            raise ValueError(msg)
        checks.count("last", last, way_out="Pass how many calls to remember, at least 1.")
        if min_calls is None:
            min_calls = (last + 1) // 2
        way_out = "Pass how many calls must have ended before it may open."
        if checks.count("min_calls", min_calls, way_out=way_out) > last:
            msg = (
                f"min_calls={min_calls!r} would never be reached: only last={last!r} calls are "
                f"remembered. Raise last, or pass at most as many."
            )
            raise ValueError(msg)
        checks.at_least("open_for", open_for, 0, way_out="Pass seconds >= 0.")
        checks.count("half_open", half_open, way_out="Pass how many calls probe, at least 1.")
        check_filter(on)
        if max_keys is not None:
            checks.count(
                "max_keys",
                max_keys,
                way_out="Pass how many keys may have a state, or None for one state for all.",
            )
        if on_change is not None:
            _check_listener(on_change)
        self._rules = _Rules(failure_ratio, last, min_calls, open_for, half_open)
        self._on = on
        self._max_keys = max_keys
        self._on_change = on_change
        self._name = name
        self._circuits: OrderedDict[Hashable, _Circuit] = OrderedDict()
        self._only = self._new_circuit(None) if max_keys is None else None
        self._open = 0
        self._half_open = 0
        self._calls = 0
        self._failed = 0
        self._undecided = 0
        self._rejected = 0
        self._opened = 0

    def __str__(self) -> str:
        rules = self._rules
        keys = "" if self._max_keys is None else f", max_keys={self._max_keys}"
        return f"Breaker({rules.failure_ratio}, last={rules.last}, open_for={rules.open_for}{keys})"

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
        """The name used in error messages."""
        return self._name

    @property
    def needs_key(self) -> bool:
        """Whether each key has its own state, so that every call needs a key."""
        return self._max_keys is not None

    @property
    def state(self) -> BreakerState:
        """
        The state now; if each key has its own, that of ``key=None``.

        An open breaker becomes half-open with the first call after its time, not before.
        """
        return self.state_of(None)

    def state_of(self, key: Hashable) -> BreakerState:
        """Return the state for a key, which need not be known. Not a checkpoint."""
        circuit = self._only or self._circuits.get(key)
        return BreakerState.CLOSED if circuit is None else circuit.state

    def force_open(self, key: Hashable = None) -> None:
        """
        Let no call through until `reset` is called. Not a checkpoint.

        Calls under way go on, but their outcomes no longer count.

        Args:
            key: For which key, if each has a state.

        Raises:
            ValueError: Each key has a state, and there is no ``key``.
        """
        self._meant(key).force_open()

    def reset(self, key: Hashable = None) -> None:
        """
        Close it, and forget all outcomes. Not a checkpoint.

        Args:
            key: For which key, if each has a state.

        Raises:
            ValueError: Each key has a state, and there is no ``key``.
        """
        self._meant(key).close()

    def statistics(self) -> BreakerStatistics:
        """Return the state and the counts so far. Not a checkpoint; from any thread."""
        keys = 1 if self._max_keys is None else len(self._circuits)
        return snapshot(BreakerStatistics, self, keys=keys)

    def wrap(self, then: Next) -> Next:
        """Return an async function that calls ``then`` while the breaker lets it."""
        only = self._only
        closed = BreakerState.CLOSED

        async def run(call: Call) -> Any:
            circuit = only or self._circuit_of(call.key)
            if circuit.state is not closed and not circuit.admit():
                await self._refuse(circuit)
            self._calls += 1
            period = circuit.period
            try:
                result = await then(call)
            except BaseException as error:
                self._failed_with(error, circuit, period)
                raise
            if not circuit.clean:
                circuit.succeed(period)
            return result

        return run

    def wrap_stream(self, then: Next) -> Next:
        """Return an async function that opens a stream by ``then``; its end is the outcome."""
        only = self._only

        async def run(call: Call) -> OpenStream:
            circuit = only or self._circuit_of(call.key)
            if circuit.state is not BreakerState.CLOSED and not circuit.admit():
                await self._refuse(circuit)
            self._calls += 1
            period = circuit.period
            try:
                opened: OpenStream = await then(call)
            except BaseException as error:
                self._failed_with(error, circuit, period)
                raise

            def end(error: BaseException | None) -> None:
                if error is None:
                    circuit.succeed(period)
                else:
                    self._failed_with(error, circuit, period)

            opened.on_end(end)
            return opened

        return run

    def _failed_with(self, error: BaseException, circuit: _Circuit, period: int) -> None:
        """Count the outcome of a call that raised."""
        if not is_outcome(error):
            self._undecided += 1
            circuit.give_back(period)
            return
        try:
            failed = accepts(self._on, error)
        except BaseException:  # a probe must not keep its place because ``on`` is wrong
            self._undecided += 1
            circuit.give_back(period)
            raise
        if failed:
            self._failed += 1
            circuit.fail(period, error)
        else:
            circuit.succeed(period)

    async def _refuse(self, circuit: _Circuit) -> None:
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
        raise BreakerOpenError(msg, retry_after=left, name=self._name)

    def _new_circuit(self, key: Hashable) -> _Circuit:
        return _Circuit(self._rules, key, self._changed)

    def _meant(self, key: Hashable) -> _Circuit:
        """Return the state to change by hand."""
        if key is None and self._only is None:
            msg = f"{self!r} has a state for each key. Say which one to change: key=..."
            raise ValueError(msg)
        return self._only or self._circuit_of(key)

    def _circuit_of(self, key: Hashable) -> _Circuit:
        """Return the state for a key; make it if there is none."""
        circuits = self._circuits
        circuit = circuits.get(key)
        if circuit is not None:
            circuits.move_to_end(key)
            return circuit
        if len(circuits) == self._max_keys:
            _, forgotten = circuits.popitem(last=False)
            self._count(forgotten.state, -1)
            forgotten.retire()
        circuit = circuits[key] = self._new_circuit(key)
        return circuit

    def _count(self, state: BreakerState, by: int) -> None:
        if state is BreakerState.OPEN:
            self._open += by
        elif state is BreakerState.HALF_OPEN:
            self._half_open += by

    def _changed(self, circuit: _Circuit, before: BreakerState, error: Exception | None) -> None:
        """Count a change of the state, and report it."""
        if circuit.state is before:
            return  # it was set by hand to what it was
        self._count(before, -1)
        self._count(circuit.state, 1)
        if circuit.state is BreakerState.OPEN:
            self._opened += 1
        if self._on_change is None:
            return
        change = BreakerChange(
            name=self._name, key=circuit.key, before=before, state=circuit.state, error=error
        )
        try:
            self._on_change(change)
        except Exception:
            from logging import getLogger  # noqa: PLC0415 - most listeners never fail

            logger = getLogger("mtaio.resilience")
            logger.exception("on_change of %s failed for %r", self, change)


def _check_listener(fn: object) -> None:
    way_out = "Pass a plain function of one argument, a BreakerChange, or None."
    checks.callable_("on_change", fn, way_out=way_out)
    if is_async(cast("Callable[..., object]", fn)):
        msg = f"on_change={fn!r} is an async function and would not be awaited. {way_out}"
        raise TypeError(msg)
