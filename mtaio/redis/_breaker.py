"""
A breaker whose state processes share.

Promise: what opens it in one process opens it in each that makes calls within ``check_interval``
and two calls of the server. Half-open, exactly ``half_open`` calls of all processes together get
through. While the server is down, each process decides alone, as a `Breaker` does.
Cost: nothing for a call that succeeds, beyond a breaker's cost and a look at a flag. One task in
the store's block makes one call in each ``check_interval`` in which the breaker was used; a call
that might probe the service waits for the server.
Why it polls, and does not count all outcomes: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, final

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.circuit import BreakerState, Circuit
from mtaio._internal.copies import uncopied
from mtaio._internal.filters import Filter
from mtaio._internal.statistics import COUNTER, GAUGE
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import StoreError
from mtaio.redis._circuit import Answer, Report, SharedCircuit, SharedState
from mtaio.redis._outage import Backoff
from mtaio.redis._server_task import ServerTask
from mtaio.redis._store import Store, check_key, check_store, store_left_error
from mtaio.resilience import Breaker, BreakerBlock, BreakerChange, Call
from mtaio.statistics import BreakerStatistics

__all__ = ["RedisBreaker", "RedisBreakerStatistics"]

Next: TypeAlias = Callable[[Call], Awaitable[Any]]

_INTERVAL = (0.01, 3600.0)
"""Seconds of ``check_interval``, least and most."""

_LEASE = 10.0
"""The fewest seconds of silence after which a process's probes no longer count."""

_RETRY = (0.1, 2.0)
"""Seconds between two calls to a server that is down: at first, and at most."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RedisBreakerStatistics(BreakerStatistics):  # type: ignore[misc] # final for users
    """The state of a `RedisBreaker`, and what it has done in this process."""

    server_calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    server_failures: int = field(metadata=COUNTER)
    """Calls to the server that failed."""
    down: bool = field(metadata=GAUGE)
    """Whether this process decides alone, because the server is down."""


class _Ask:
    """
    What a task gets that wants to probe the service.

    Attributes:
        period: The server's period in which it was granted a place; None if it was not.
        error: Why it cannot know.
    """

    __slots__ = ("error", "period")

    def __init__(self) -> None:
        self.period: int | None = None
        self.error: Exception | None = None


@final
@uncopied
class RedisBreaker(Breaker):  # type: ignore[misc] # final for users
    """
    A `mtaio.resilience.Breaker` whose state is shared by processes through a server.

    Each process judges the service by its own calls. If these open the breaker, it opens in all
    processes: at once in this one, and in others when they next ask the server, which they do every
    ``check_interval`` seconds while they make calls. After ``open_for`` seconds, the server lets
    ``half_open`` calls of all processes together probe the service; their outcomes close or reopen
    the breaker everywhere. If the process of a probe dies, another call takes its place after 10
    seconds, or four times ``check_interval`` if that is longer.

    Only calls that may become probes wait for the server. While the server is down, each process
    decides alone; when the server is back, those decisions are forgotten, unless they opened the
    breaker. `force_open` and `reset` apply to all processes, `disable` only to this one.

    It can be created anywhere, and is used inside the block of its store. Every process must pass
    the same key, and should pass the same rules.

    Args:
        store: The server, entered before the first call.
        key: What the breaker is for. Breakers with the same key on the same server share their
            state.
        failure_ratio: As for `mtaio.resilience.Breaker`.
        last: Number of calls of this process to remember.
        min_calls: As for `mtaio.resilience.Breaker`.
        consecutive: As for `mtaio.resilience.Breaker`.
        slow: As for `mtaio.resilience.Breaker`.
        slow_ratio: As for `mtaio.resilience.Breaker`.
        open_for: As for `mtaio.resilience.Breaker`.
        half_open: Number of calls, of all processes together, that probe the service after that.
        half_open_ratio: As for `mtaio.resilience.Breaker`.
        failed: As for `mtaio.resilience.Breaker`.
        on: As for `mtaio.resilience.Breaker`.
        check_interval: Seconds between two checks of the server while calls are made, from 0.01 to
            3600.
        on_change: A plain function that is called with a `mtaio.resilience.BreakerChange` at each
            change in this process.
        name: Name shown in messages and metrics. Default: ``key``.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline, Timeout
        from mtaio.redis import RedisBreaker, RedisStore

        store = RedisStore("redis://127.0.0.1:6379/0")
        api = Pipeline(RedisBreaker(store, "payments", 0.5, last=20), Timeout(5))


        async def main() -> None:
            async with store:
                await api.run(anyio.sleep, 0.1)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - only the task _serve calls the server, one call at a time;
    # - _asks are the tasks that wait to hear whether they may probe: its next answer wakes them;
    # - _period is the period of the server that the circuit is in, unless it is alone;
    # - _polls says that _serve will look within _interval: what sets it False is _serve itself,
    #   when the breaker was not _used since the last look; the next call sets it and wakes _serve;
    # - _news says that there is something to report, and _order what was ordered by hand.
    __slots__ = (
        "_asks",
        "_circuit",
        "_full_until",
        "_interval",
        "_key",
        "_looked",
        "_news",
        "_order",
        "_period",
        "_polls",
        "_retry",
        "_retry_at",
        "_server",
        "_state",
        "_store",
        "_used",
    )

    def __init__(
        self,
        store: Store,
        key: str,
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
        check_interval: float = 0.5,
        on_change: Callable[[BreakerChange], object] | None = None,
        name: str | None = None,
    ) -> None:
        check_store(store)
        check_key(key)
        way_out = "Pass the seconds within which this process learns that another has opened it."
        self._interval = checks.between(
            "check_interval", check_interval, *_INTERVAL, way_out=way_out
        )
        super().__init__(
            failure_ratio,
            last=last,
            min_calls=min_calls,
            consecutive=consecutive,
            slow=slow,
            slow_ratio=slow_ratio,
            open_for=open_for,
            half_open=half_open,
            half_open_ratio=half_open_ratio,
            failed=failed,
            on=on,
            on_change=on_change,
            name=key if name is None else name,
        )
        self._store = store
        self._key = key
        self._state = SharedState(store, key, self._rules, max(_LEASE, 4 * self._interval))
        self._asks: WaitQueue[_Ask] = WaitQueue()
        self._server = ServerTask(store, self._asks, "alone")
        self._retry = Backoff(*_RETRY)
        self._period = 0
        self._order = ""
        self._news = self._used = False
        self._begin_loop()

    def _begin_loop(self) -> None:
        """Have no task, no probes and no news of the server: they belong to an event loop."""
        self._circuit.alone = False
        self._circuit.forget_probes()
        self._polls = False
        self._looked: float = -math.inf
        self._retry_at: float = -math.inf
        self._full_until: float = -math.inf
        self._retry.reset()

    def __str__(self) -> str:
        return f"RedisBreaker({self._key!r}, {super().__str__().removeprefix('Breaker(')}"

    def __repr__(self) -> str:
        return f"<RedisBreaker {self.name!r}: {self._circuit.state} at {self._store.name}>"

    @property
    def key(self) -> str:
        """What the breaker is for."""
        return self._key

    @property
    def check_interval(self) -> float:
        """Seconds between two checks of the server while calls are made."""
        return self._interval

    def force_open(self, key: Hashable = None) -> None:
        """
        Refuse all calls, in all processes, until `reset` is called in one of them.

        Not a checkpoint. It takes effect at once in this process; the server is told in the
        background, or, outside of the store's block, with the next call inside it.

        Args:
            key: Not used, since the breaker has one state.
        """
        super().force_open(key)
        self._give("force")

    def reset(self, key: Hashable = None) -> None:
        """
        Close the breaker in all processes and forget all outcomes.

        Not a checkpoint. It takes effect like `force_open`.

        Args:
            key: Not used, since the breaker has one state.
        """
        super().reset(key)
        self._give("close")

    def statistics(self) -> RedisBreakerStatistics:
        """
        Return a snapshot of this process.

        Not a checkpoint. It can be called from any thread.
        """
        local = super().statistics()
        return RedisBreakerStatistics(
            **{each.name: getattr(local, each.name) for each in fields(local)},
            server_calls=self._server.server_calls,
            server_failures=self._server.server_failures,
            down=self._circuit.alone,
        )

    def wrap(self, then: Next) -> Next:
        """Return an async function that calls ``then`` if the breaker lets it through."""
        return self._prepared(super().wrap(then))

    def wrap_stream(self, then: Next) -> Next:
        """Return an async function that opens a stream with ``then``; its end is the outcome."""
        return self._prepared(super().wrap_stream(then))

    def _prepared(self, through: Next) -> Next:
        """Return what calls ``through`` when this process knows whether it may."""
        circuit, asks = self._circuit, self._asks
        closed = BreakerState.CLOSED

        async def prepare(call: Call) -> Any:
            await self._prepare()
            return await through(call)

        def run(call: Call) -> Awaitable[Any]:
            self._used = True
            if circuit.state is closed and self._polls and asks.runs_here():
                return through(call)
            return prepare(call)

        return run

    async def __aenter__(self) -> BreakerBlock:
        """
        Start a block that counts as a call, as `mtaio.resilience.Breaker` does.

        A checkpoint if the block might be a probe.

        Raises:
            BreakerOpenError: The breaker lets no call through.
            RuntimeError: The store is not entered.
        """
        self._used = True
        await self._prepare()
        return await super().__aenter__()

    async def _begin(self, key: Hashable) -> Circuit:
        self._used = True
        await self._prepare()
        return await super()._begin(key)

    def _new_circuit(self, key: Hashable) -> Circuit:
        self._circuit = SharedCircuit(self._rules, key, self._changed, self._tell)
        return self._circuit

    # What calls do

    async def _prepare(self) -> None:
        """
        Have the server looked at, and ask it for a place if the call might be a probe.

        Where there is none, the circuit refuses the call after this.
        """
        self._start()
        circuit = self._circuit
        if not circuit.shares or clock.now() < self._full_until:
            return
        ask = _Ask()
        waiter = self._asks.join(ask)
        self._tell()
        try:
            await waiter
        except BaseException:
            if self._asks.leave(waiter) and ask.period == self._period:
                circuit.give_place_back()
            raise
        if ask.error is not None:
            raise ask.error
        if ask.period == self._period and not circuit.alone:
            circuit.places += 1

    def _start(self) -> None:
        """Have the server looked at from here on."""
        if self._server.attach(self):
            self._begin_loop()
        self._server.start(self._serve)
        if not self._polls:
            self._polls = True
            self._tell()

    def _tell(self) -> None:
        """Have what has changed reported to the server."""
        self._news = True
        self._server.wake()

    def _give(self, order: str) -> None:
        """Have an order carried out for all processes."""
        self._order = order
        with suppress(RuntimeError):  # the store is not entered here: the next call tells
            self._start()
        self._tell()

    # The server

    async def _serve(self) -> None:
        """Call the server whenever there is news, and while the breaker is used."""
        process = self._server.process
        try:
            while True:
                while (due := self._due()) > clock.now():
                    await self._server.sleep(due)
                await self._exchange()
        finally:
            # Else it is thrown away with its loop, and no tracer sees where it goes.
            if self._server.is_current(process):  # pragma: no branch - as said
                await self._say_goodbye()

    def _due(self) -> float:
        """Return when to call the server next."""
        if self._circuit.alone:
            return self._retry_at
        if self._news:
            return -math.inf
        if self._used or self._circuit.held:  # what is held has a lease
            return self._looked + self._interval
        self._polls = False
        return math.inf

    async def _exchange(self) -> None:
        """
        Call the server once, and act on its answer.

        Calls go on during it. What they change sets ``_news`` again, for the next one.
        """
        # 1. What is reported, and who waits for the answer. What comes later is for the next call.
        circuit, order, asks = self._circuit, self._order, [*self._asks.waiters.items()]
        self._news, self._used = False, bool(asks)  # those that are refused will want to know
        self._looked = clock.now()
        report = self._report(len(asks))
        # 2. Without an answer, everything is decided here.
        try:
            answer = await self._server.call(self._state.exchange(report))
        except StoreError as error:
            self._fail(error)
            return
        self._retry.reset()
        if self._order == order:
            self._order = ""
        # 3. The state of the server is that of the circuit; unless this was opened during the call,
        #    or the server has lost its data: then it learns of it by the next.
        period, self._period = self._period, answer.period
        if answer.period < period and circuit.state is BreakerState.OPEN and not report.order:
            circuit.trip = circuit.reason
        if circuit.trip and not report.order and answer.state is BreakerState.CLOSED:
            circuit.alone = False
            self._news = True
        elif answer.period != period or circuit.alone:
            circuit.adopt(answer.state, answer.seconds, answer.reason)
        elif answer.state is circuit.state is BreakerState.OPEN and not circuit.trip:
            circuit.until = clock.catch_up(circuit) + answer.seconds
        # 4. Places go to those that have waited for this answer; what is left over goes back.
        self._hand_out(answer, asks)

    def _hand_out(self, answer: Answer, asks: list[tuple[Any, _Ask]]) -> None:
        """Wake the tasks that asked, with the places that the server granted."""
        circuit, granted = self._circuit, answer.granted
        full = circuit.state is BreakerState.HALF_OPEN and not answer.left
        self._full_until = clock.now() + self._interval if full else -math.inf
        circuit.held += granted
        for waiter, ask in asks:
            if waiter in self._asks.waiters and self._asks.wake(waiter) and granted:
                ask.period = answer.period
                granted -= 1
        if granted:  # their tasks were cancelled
            circuit.held -= granted
            self._news = True

    def _report(self, wanted: int) -> Report:
        """Return what is reported to the server next."""
        circuit = self._circuit
        seconds, order = 0.0, self._order
        if order == "force":
            seconds = math.inf
        elif not order and circuit.trip:
            seconds = circuit.left()
            if seconds:
                order = "open"
            else:  # that is over
                circuit.trip = ""
        return Report(
            self._server.process,
            self._period,
            circuit.held,
            circuit.bad,
            circuit.ended,
            wanted,
            order,
            seconds,
            circuit.reason if order in {"open", "force"} else "",
        )

    def _fail(self, error: StoreError) -> None:
        """Decide alone from here on: the server is down."""
        self._server.failure = error
        self._server.log(self, error)
        self._circuit.go_alone()
        self._retry_at = clock.now() + self._retry.next()
        self._asks.wake_all()

    async def _say_goodbye(self) -> None:
        """Give the places back, and tell what has not been told, because the store's block ends."""
        self._server.ended()
        circuit = self._circuit
        for waiter, ask in [*self._asks.waiters.items()]:
            ask.error = store_left_error(self._store, self)
            self._asks.wake(waiter)
        circuit.held = circuit.places = 0
        if not circuit.alone:
            with (
                anyio.move_on_after(min(1.0, self._store.timeout), shield=True),
                suppress(StoreError),
            ):
                await self._state.exchange(self._report(0))
                self._order = ""
        self._begin_loop()
