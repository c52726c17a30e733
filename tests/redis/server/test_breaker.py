"""`RedisBreaker` on the virtual clock, with its script run by real servers."""

from __future__ import annotations

import logging
import math
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest

from mtaio.exceptions import BreakerOpenError
from mtaio.redis import RedisBreaker
from mtaio.resilience import Breaker, BreakerChange, BreakerState, Pipeline
from mtaio.testing import Victim, explore, run, settle
from tests.redis.memory import MemoryStore
from tests.redis.scripts import Connection, VirtualScripts
from tests.redis.servers import serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

OPEN, CLOSED, HALF_OPEN = BreakerState.OPEN, BreakerState.CLOSED, BreakerState.HALF_OPEN

ROUND = 0.01
"""More than a call of the server takes."""


class Fleet:
    """Processes with a breaker each, which is the same for all."""

    def __init__(self, connection: Connection, size: int = 3, **options: Any) -> None:
        self.stores = [VirtualScripts(connection, timeout=0.1) for _ in range(size)]
        options = {"last": 4, "open_for": 10, "check_interval": 1, **options}
        key = uuid4().hex
        self._stack = AsyncExitStack()
        self.breakers = [RedisBreaker(store, key, **options) for store in self.stores]

    async def __aenter__(self) -> list[RedisBreaker]:
        await self._stack.__aenter__()
        for store in self.stores:
            await self._stack.enter_async_context(store)
        return self.breakers

    async def __aexit__(self, *how: object) -> None:
        await self._stack.aclose()

    @property
    def states(self) -> list[BreakerState]:
        """The state of each, as it knows."""
        return [breaker.state for breaker in self.breakers]


async def works(seconds: float = 0.0) -> None:
    """Succeed."""
    await anyio.sleep(seconds)


async def fails(seconds: float = 0.0) -> None:
    """Fail."""
    await anyio.sleep(seconds)
    raise ConnectionError


async def opened(fleet: Fleet) -> None:
    """Have it opened by the first process, and known to all."""
    for breaker in fleet.breakers:
        await breaker.run(works)
    await failing(fleet.breakers[0])
    for breaker in fleet.breakers[1:]:
        while breaker.state is not OPEN:
            await breaker.run(works, 0.2)


async def failing(breaker: RedisBreaker) -> None:
    """Call until it is open."""
    while breaker.state is not OPEN:
        with suppress(ConnectionError):
            await breaker.run(fails)


def virtual(fn: Callable[..., Coroutine[Any, Any, None]], backend: str, *args: Any) -> None:
    """Run a test."""
    run(partial(fn, *args), backend=backend)


def test_opens_everywhere(connection: Connection, backend: str) -> None:
    """Within the interval; until then others go on, and no call of theirs waits for the server."""
    changes: list[BreakerChange] = []

    async def main() -> None:
        fleet = Fleet(connection, on_change=changes.append)
        async with fleet as (first, second, third):
            for breaker in (second, third):
                await breaker.run(works)
            await failing(first)
            start = anyio.current_time()
            while second.state is not OPEN:
                before = anyio.current_time()
                await second.run(works)
                assert anyio.current_time() == before
                await anyio.sleep(0.01)
            assert anyio.current_time() - start <= 1 + 2 * ROUND
            # One that was not used looks with its first call, and learns of it right after.
            await anyio.sleep(5)
            assert third.state is CLOSED
            await third.run(works, ROUND)
            with pytest.raises(
                BreakerOpenError, match=r"of the last 2 calls failed, .* in 4\.\d|3\.9"
            ) as no:
                await third.run(works)
            assert no.value.retry_after == pytest.approx(10 - anyio.current_time() + start, abs=0.1)
            assert [change.error is None for change in changes] == [False, True, True]
            assert {change.name for change in changes} == {first.key} == {first.name}
            assert first.statistics().opened == second.statistics().opened == 1
            assert second.statistics().server_calls <= 4

    virtual(main, backend)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_probes_of_all_processes(connection: Connection, backend: str, bad: int) -> None:
    """Exactly so many get through, wherever they come; together they close it, or open it again."""

    async def main() -> None:
        fleet = Fleet(connection, half_open=3, half_open_ratio=0.6)
        async with fleet as breakers:
            await opened(fleet)
            await anyio.sleep(10 + ROUND)
            made: list[Any] = []

            async def probe() -> None:
                made.append(fails if len(made) < bad else works)
                await made[-1](0.1)

            async def call(breaker: RedisBreaker) -> None:
                with suppress(ConnectionError, BreakerOpenError):
                    await breaker.run(probe)

            async with anyio.create_task_group() as group:
                for breaker in breakers * 5:
                    group.start_soon(call, breaker)
                await anyio.sleep(0.05)
                assert set(fleet.states) == {HALF_OPEN}
            assert len(made) == 3
            await anyio.sleep(2)
            for breaker in breakers:
                if bad < 2:
                    await breaker.run(works)
                    continue
                text = r"refuses the call: 2 of 3 calls that were"
                with pytest.raises(BreakerOpenError, match=text):
                    await breaker.run(works)
            assert set(fleet.states) == {OPEN if bad == 2 else CLOSED}

    virtual(main, backend)


def test_probes_that_do_not_end(redis_connection: Connection, backend: str) -> None:
    """A cancelled one gives its place back at once, one of a killed process after its lease."""

    async def main() -> None:
        fleet = Fleet(redis_connection)
        async with fleet as (first, second, third):
            await opened(fleet)
            await anyio.sleep(10 + ROUND)
            async with anyio.create_task_group() as group:
                group.start_soon(first.run, anyio.sleep, 100)
                await anyio.sleep(5)  # longer than a lease would last unrenewed
                with pytest.raises(BreakerOpenError, match="waits for its probe calls"):
                    await second.run(works)
                await anyio.sleep(10 + ROUND)
                with pytest.raises(BreakerOpenError):
                    await second.run(works)
                group.cancel_scope.cancel()
            await anyio.sleep(1)
            async with anyio.create_task_group() as group:
                group.start_soon(second.run, anyio.sleep, 1000)
                await settle()
                await anyio.sleep(0.5)
                fleet.stores[1].down = True  # all that the others see of its death
                start = anyio.current_time()
                while third.state is not CLOSED:
                    with suppress(BreakerOpenError):
                        await third.run(works)
                    await anyio.sleep(0.1)
                assert 8 < anyio.current_time() - start < 12
                group.cancel_scope.cancel()

    virtual(main, backend)


def test_by_hand(connection: Connection, backend: str) -> None:
    """force_open and reset are for all, also from a process that makes no calls."""

    async def main() -> None:
        fleet = Fleet(connection, size=2)
        first, second = fleet.breakers
        async with fleet.stores[0]:
            await first.run(works)
            async with fleet.stores[1]:
                second.force_open()
            assert second.state is OPEN
            with suppress(BreakerOpenError):
                await first.run(works)
            await anyio.sleep(2)
            with pytest.raises(
                BreakerOpenError, match=r"force_open\(\) was called\. reset\(\) clo"
            ):
                await first.run(works)
            await anyio.sleep(80_000)
            with pytest.raises(BreakerOpenError) as refused:
                async with first:
                    pass
            assert refused.value.retry_after == math.inf
            second.reset()  # outside of its store: the server learns of it later
            async with fleet.stores[1]:
                await second.run(works)
                await anyio.sleep(1)
                with suppress(BreakerOpenError):
                    await first.run(works)
                await anyio.sleep(1)
                async with first as block, second.block():
                    block.mark_failed()
                first.disable()
                second.force_open()
                await anyio.sleep(3)
                for _ in range(3):
                    await first.run(works)
                    await anyio.sleep(1)
                assert first.state is BreakerState.DISABLED
                await anyio.sleep(0.001)
                second.force_open()
                await anyio.sleep(0.001)  # while that is on its way
                second.reset()
                await anyio.sleep(ROUND)
                with anyio.move_on_after(1):
                    await second.run(anyio.sleep, 2)
                assert second.statistics().undecided == 1

    virtual(main, backend)


def test_outage(
    redis_connection: Connection, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the server each process decides alone; with it an opening counts for all again."""

    async def main() -> None:
        fleet = Fleet(redis_connection)
        async with fleet as (first, second, third):
            await opened(fleet)
            for store in fleet.stores:
                store.down = True
            await anyio.sleep(10 + ROUND)
            await first.run(works)  # its probe, after the server has not answered
            assert (first.state, first.statistics().down) == (CLOSED, True)
            with suppress(ConnectionError):
                await second.run(fails)
            assert (second.state, third.state) == (OPEN, OPEN)
            await anyio.sleep(5)
            await failing(first)
            await anyio.sleep(3)
            for store in fleet.stores:
                store.down = False
            await anyio.sleep(3)
            assert not first.statistics().down
            with suppress(BreakerOpenError):
                await third.run(works)
            await anyio.sleep(1)
            assert fleet.states == [OPEN] * 3
            await anyio.sleep(10 + ROUND)
            await third.run(works)
            for breaker in (first, second):
                with suppress(BreakerOpenError):
                    await breaker.run(works)
            await anyio.sleep(1)
            assert fleet.states == [CLOSED] * 3

    with caplog.at_level(logging.WARNING, "mtaio.redis"):
        virtual(main, backend)
    assert "the server failed (on_failure='alone')" in caplog.text


def test_outage_while_it_probes(redis_connection: Connection, backend: str) -> None:
    """What the probes have shown decides; those under way leave their place to the next call."""

    async def main() -> None:
        for probe, state in ((works, CLOSED), (fails, OPEN), (None, CLOSED)):
            fleet = Fleet(redis_connection, size=1, half_open=2, half_open_ratio=0.5)
            async with fleet as (breaker,):
                await opened(fleet)
                await anyio.sleep(10 + ROUND)
                async with anyio.create_task_group() as group:
                    group.start_soon(breaker.run, anyio.sleep, 100)
                    await anyio.sleep(0.1)
                    if probe is None:
                        fleet.stores[0].down = True
                        await anyio.sleep(2)
                        for _ in range(2):
                            await breaker.run(works)
                    else:
                        group.start_soon(_down_soon, fleet.stores[0])
                        with suppress(ConnectionError):
                            await breaker.run(probe, 0.2)
                        await anyio.sleep(0.2)
                    assert breaker.state is state
                    group.cancel_scope.cancel()
                fleet.stores[0].down = False

    virtual(main, backend)


async def _down_soon(store: VirtualScripts) -> None:
    await anyio.sleep(0.1)
    store.down = True


def test_server_that_forgets(redis_connection: Connection, backend: str) -> None:
    """It learns the state from those that know it; a clock that is set back lasts no longer."""

    async def main() -> None:
        fleet = Fleet(redis_connection)
        async with fleet as (first, second, third):
            await opened(fleet)
            redis_connection.ask("FLUSHALL")
            for _ in range(3):
                for breaker in (second, third):
                    with suppress(BreakerOpenError):
                        await breaker.run(works)
                await anyio.sleep(1)
            assert fleet.states == [OPEN] * 3
            for store in fleet.stores:
                store.skew -= 3600
            await anyio.sleep(9)
            with suppress(BreakerOpenError):
                await first.run(works)
            await anyio.sleep(11)
            await first.run(works, 1)
            await settle()
            await anyio.sleep(ROUND)
            assert first.state is CLOSED

    virtual(main, backend)


def test_opened_before_the_first_answer(redis_connection: Connection, backend: str) -> None:
    """What was opened before a process knew of the state of the others opens it for them."""

    async def main() -> None:
        fleet = Fleet(redis_connection, size=2, open_for=1)
        async with fleet as (first, second):
            await opened(fleet)
            await anyio.sleep(1 + ROUND)
            await second.run(works)
            await anyio.sleep(ROUND)  # it is closed now
            new = RedisBreaker(fleet.stores[0], first.key, last=4, open_for=1)
            await failing(new)
            await anyio.sleep(0.9)
            assert new.state is OPEN
            with suppress(BreakerOpenError):
                await second.run(works)
            await anyio.sleep(ROUND)
            assert second.state is OPEN

    virtual(main, backend)


def test_opening_that_is_over_before_the_server_hears_of_it(
    redis_connection: Connection, backend: str
) -> None:
    """It is not reported any more, and the next call is the probe, as everywhere."""

    async def main() -> None:
        fleet = Fleet(redis_connection, size=2, open_for=0.5)
        async with fleet as (first, second):
            for breaker in fleet.breakers:
                await breaker.run(works)
            fleet.stores[0].down = True
            await failing(first)
            await anyio.sleep(5)
            fleet.stores[0].down = False
            await anyio.sleep(5)
            assert not first.statistics().down
            for breaker in fleet.breakers:
                await breaker.run(works)
            await anyio.sleep(1)
            assert (first.state, second.state) == (CLOSED, CLOSED)

    virtual(main, backend)


def test_streams(redis_connection: Connection, backend: str) -> None:
    """The end of a stream is its outcome."""

    async def broken() -> AsyncGenerator[int]:
        yield 1
        raise ConnectionError

    async def main() -> None:
        fleet = Fleet(redis_connection, size=1)
        async with fleet as (breaker,):
            for _ in range(2):
                with suppress(ConnectionError):
                    async with breaker.stream(broken) as items:
                        assert [item async for item in items] == [1]
            with pytest.raises(BreakerOpenError):
                async with breaker.stream(broken):
                    pass

    virtual(main, backend)


def test_store_that_is_left(redis_connection: Connection, backend: str) -> None:
    """The places of a process go back at once; a task that asks for one gets an error."""

    async def main() -> None:
        fleet = Fleet(redis_connection, size=2, open_for=1)
        first, second = fleet.breakers
        errors: list[str] = []

        async def asks(breaker: RedisBreaker) -> None:
            try:
                await breaker.run(works)
            except RuntimeError as error:
                errors.append(str(error))

        async with fleet.stores[0]:
            async with fleet.stores[1], anyio.create_task_group() as group:
                await opened(fleet)
                await anyio.sleep(1 + ROUND)
                group.start_soon(second.run, anyio.sleep, 100)
                await anyio.sleep(0.1)
                with pytest.raises(BreakerOpenError):
                    await first.run(works)
                group.cancel_scope.cancel()
            await anyio.sleep(1)
            await first.run(works)
        with pytest.raises(RuntimeError, match="not entered"):
            await first.run(works)
        # In the next block, a task that waits for its answer when that ends.
        async with anyio.create_task_group() as group, fleet.stores[0]:
            await failing(first)
            await anyio.sleep(1 + ROUND)
            fleet.stores[0].latency = 5.0
            group.start_soon(asks, first)
            await settle()
        assert len(errors) == 1
        assert "was left while" in errors[0]

    virtual(main, backend)


def test_loops_one_after_another(redis_connection: Connection, backend: str) -> None:
    """What is known of the state stays; places, and news of an outage, do not."""
    fleet = Fleet(redis_connection, size=1, open_for=1)
    (breaker,) = fleet.breakers

    async def first() -> None:
        async with fleet:
            await opened(fleet)
            await anyio.sleep(1 + ROUND)
            fleet.stores[0].down = True
            await breaker.run(works)
            fleet.stores[0].down = False

    async def second() -> None:
        async with fleet:
            assert not breaker.statistics().down
            await breaker.run(works)
            await failing(breaker)

    virtual(first, backend)
    virtual(second, backend)


@pytest.fixture(scope="module")
def scripts() -> Generator[Connection]:
    """Return a connection to a server, for explored tests."""
    with serving() as server:
        connection = Connection(server)
        yield connection
        connection.close()


def test_cancelled_anywhere(scripts: Connection, backend: str) -> None:
    """A call that is cancelled between any two steps keeps no place from the others."""

    @explore(seeds=0, exhaustive=0, inject=("step", "native"), backends=(backend,))
    async def scenario(victim: Victim) -> None:
        fleet = Fleet(scripts, size=2, open_for=1, half_open=2, half_open_ratio=0)
        async with fleet as (first, second):
            await failing(first)
            await anyio.sleep(1.1)
            async with anyio.create_task_group() as group:
                group.start_soon(victim, first.run, works, 0.1)
                group.start_soon(first.run, works, 0.1)
            for _ in range(30):
                for breaker in (first, second):
                    with suppress(BreakerOpenError):
                        await breaker.run(works)
                await anyio.sleep(0.1)
            assert fleet.states == [CLOSED, CLOSED]

    scenario()


def test_shows_itself(backend: str) -> None:
    """In messages, in a pipeline, and in the monitor."""
    store: Any = MemoryStore()
    breaker = RedisBreaker(store, "payments", 1, consecutive=3)
    assert repr(breaker) == "<RedisBreaker 'payments': closed at memory://>"
    assert str(Pipeline(breaker)) == (
        "Pipeline\n  RedisBreaker('payments', 1, last=20, open_for=30.0, consecutive=3)"
    )
    assert (breaker.key, breaker.name, breaker.check_interval) == ("payments", "payments", 0.5)
    assert isinstance(breaker, Breaker)
    with pytest.raises(ValueError, match=r"^check_interval=0\.001 is not between 0\.01 and 3600"):
        RedisBreaker(store, "payments", check_interval=0.001)
    with pytest.raises(RuntimeError, match="not entered"):
        run(partial(breaker.run, works), backend=backend)
