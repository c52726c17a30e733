"""`RedisConcurrencyLimiter` on the virtual clock, with a server in memory."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from mtaio._internal import loops
from mtaio.exceptions import ConcurrencyLimitError, LeaseLostError, MTAIOError, StoreError
from mtaio.redis import Lease, RedisConcurrencyLimiter
from mtaio.resilience import Pipeline
from mtaio.resources import ConcurrencyLimiter
from mtaio.testing import Victim, check_limiter, explore, run, settle
from tests.redis.exchanging import Slots
from tests.redis.forking import forked

ROOT = Path(__file__).parents[2]


async def test_slots_are_shared() -> None:
    """Two processes together never have more than the limit; both get about the same."""
    async with Slots() as store:
        limiters = [RedisConcurrencyLimiter(store, "key", 3) for _ in range(2)]
        counts, inside, peak = [0, 0], 0, 0

        async def work(number: int) -> None:
            nonlocal inside, peak
            while True:
                async with limiters[number]:
                    inside += 1
                    peak = max(peak, inside)
                    await anyio.sleep(0.05)
                    inside -= 1
                    counts[number] += 1

        async with anyio.create_task_group() as group:
            for number in (0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1):
                group.start_soon(work, number)
            await anyio.sleep(10)
            group.cancel_scope.cancel()
        assert peak == store.most == 3
        assert sum(counts) > 0.9 * 3 * 10 / 0.05
        assert 0.9 < counts[0] / counts[1] < 1.1
        await anyio.sleep(0.1)
        assert store.members == {}
        statistics = limiters[0].statistics()
        assert statistics.in_use == statistics.waiting == 0
        assert statistics.server_calls < 3 * counts[0]


COLLECTED = """
import asyncio, gc, sys
import anyio
from mtaio.redis import RedisConcurrencyLimiter
from mtaio.testing import run
from tests.redis.exchanging import Slots

store = Slots(latency=0.001)
limiter = RedisConcurrencyLimiter(store, "key", 1, lease=0.5)

async def first():
    # AnyIO 4.16 happens to keep what its task groups started, for ever.
    store.start = lambda fn: asyncio.ensure_future(fn())
    held.append(await limiter.acquire())
    held.append(asyncio.ensure_future(limiter.acquire()))
    while not store.listeners():
        await asyncio.sleep(0)
    held.extend(asyncio.all_tasks())

async def second():
    del store.start
    store.forget()  # it has the clock of the loop, in which no lease of the last one ever ends
    served = []

    async def work(number):
        async with limiter:
            served.append(number)
            await anyio.sleep(2)

    async with store:
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(work, number)
            await anyio.sleep(1)
            assert store.listeners() == 2
            held.clear()
            gc.collect()
            assert store.listeners() == 1
            await anyio.sleep(2)
            assert store.listeners() == 1
    return len(served)

loop = asyncio.new_event_loop()
held = []
loop.run_until_complete(first())
loop.close()
del loop
print(run(second, backend=sys.argv[1]))
"""


def test_tasks_of_a_closed_loop_that_are_collected(backend: str) -> None:
    """Their coroutines are closed when the next loop uses the limiter, and leave it alone."""
    program = [sys.executable, "-c", COLLECTED, backend]
    done = subprocess.run(  # noqa: S603 - a program of ours
        program, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
    assert "Traceback" not in done.stderr, done.stderr


async def test_order_and_tokens() -> None:
    """Tasks of a process are served in the order of asking, with growing tokens."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 2)
        served: list[tuple[int, int]] = []

        async def work(number: int) -> None:
            async with limiter as lease:
                served.append((lease.token, number))
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(work, number)
                await settle()
        assert [number for _, number in sorted(served)] == list(range(20))
        assert len({token for token, _ in served}) == 20


async def test_answer_that_comes_too_late_lends_nothing() -> None:
    """A slot whose lease may be over is not lent; the next answer lends one."""
    async with Slots() as store:
        store.latency = 2
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=1)

        async def get_well() -> None:
            await anyio.sleep(1.5)
            store.latency = 0.001

        async with anyio.create_task_group() as group:
            group.start_soon(get_well)
            async with limiter as lease:
                assert anyio.current_time() > 2
                lease.check()
        assert store.most == 1
        assert limiter.statistics().server_calls >= 2


async def test_one_heartbeat_for_all_slots() -> None:
    """While nothing changes, a process calls three times in a lease, however much it holds."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 50, lease=3)
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(hold, limiter, 300)
            await anyio.sleep(1)
            before = store.calls
            await anyio.sleep(270)
            assert limiter.statistics().in_use == 50
            assert 265 <= store.calls - before <= 275
            group.cancel_scope.cancel()
        assert limiter.statistics().lost == 0


async def hold(limiter: RedisConcurrencyLimiter, seconds: float) -> None:
    """Hold a slot."""
    async with limiter:
        await anyio.sleep(seconds)


async def test_waiting_costs_few_calls() -> None:
    """A process whose tasks wait does not ask all the time; it is called when a slot is free."""
    async with Slots() as store:
        one, two = (RedisConcurrencyLimiter(store, "key", 1) for _ in range(2))
        lease = await one.acquire()
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(hold, two, 0)
            await anyio.sleep(60)
            assert store.calls <= 90
            lease.release()
            await anyio.sleep(0.01)
            assert two.statistics().acquired >= 1


async def test_lost_call_is_made_up_for() -> None:
    """A process that does not hear that a slot is kept for it loses it to the next in time."""
    async with Slots() as store:
        holder, deaf, other = (RedisConcurrencyLimiter(store, "key", 1) for _ in range(3))
        lease = await holder.acquire()
        async with anyio.create_task_group() as group:
            for limiter in (deaf, other):
                group.start_soon(hold, limiter, 1)
                await anyio.sleep(0.1)
            store.reconnect()
            await anyio.sleep(0.1)
            first = min(store.members.values(), key=lambda member: member.turn or 1000)
            first.turn = None  # as if it had been called, and had not heard
            lease.release()
            await anyio.sleep(0.5)
            assert other.statistics().acquired == 1
        assert deaf.statistics().acquired == 1


async def test_unreachable_server_and_lease() -> None:
    """A holder goes on without the server until nine tenths of the lease, and is cancelled then."""
    async with Slots(timeout=0.5) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=10, name="reports")
        start = anyio.current_time()
        leases: list[Lease] = []

        async def work() -> None:
            async with limiter as lease:
                leases.append(lease)
                store.fail()
                await anyio.sleep(100)

        with pytest.raises(
            LeaseLostError,
            match=r"^<RedisConcurrencyLimiter 'reports' at memory://> lost the lease with the "
            r"token \d+: it was not renewed in time\. ",
        ) as caught:
            await work()
        lease = leases[0]
        assert anyio.current_time() - start == pytest.approx(9, abs=0.01)
        assert caught.value.token == lease.token
        assert caught.value.name == "reports"
        assert lease.lost
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
        assert (str(again), again.token) == (str(caught.value), lease.token)
        assert limiter.statistics().lost == 1
        assert limiter.statistics().server_failures >= 5
        store.recover()
        async with limiter as later:
            assert later.token > lease.token


async def test_part_of_a_pipeline() -> None:
    """Each call holds a slot, and is cancelled when its lease is lost."""
    async with Slots(timeout=0.5) as store:
        pipelines = [Pipeline(RedisConcurrencyLimiter(store, "key", 1)) for _ in range(2)]
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(pipelines[number % 2].run, anyio.sleep, 1)
        assert store.most == 1
        assert 6 <= anyio.current_time() < 6.1

        async def work() -> None:
            store.fail()
            await anyio.sleep(100)

        with pytest.raises(LeaseLostError, match=r"it was not renewed in time"):
            await pipelines[0].run(work)
        assert anyio.current_time() < 6.1 + 10
        assert pipelines[0].statistics().failed == 1


async def test_server_that_forgets() -> None:
    """A holder that the server no longer knows of is cancelled at the next sign of life."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=3)
        async with limiter:
            store.forget()
        await anyio.sleep(0.1)

        async def work() -> None:
            async with limiter:
                store.forget()
                await anyio.sleep(1000)

        with pytest.raises(LeaseLostError, match=r"the server no longer knows of it\. Another"):
            await work()
        assert anyio.current_time() < 2


async def test_holder_that_comes_late() -> None:
    """A process that stood still finds its lease lost, whatever its tasks do first."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=3)
        lease = await limiter.acquire()
        assert not lease.lost
        assert re.match(r"^<Lease \d+ of <.*>: held>$", repr(lease))
        lease.check()
        store.down = True
        await anyio.sleep(2.8)
        assert lease.lost
        assert repr(lease).endswith(": lost>")
        with pytest.raises(LeaseLostError):
            lease.check()
        lease.release()
        assert lease.lost
        store.down = False
        await anyio.sleep(1)
        async with limiter as later:
            pass
        assert repr(later).endswith(": released>")
        assert not later.lost
        later.release()


async def test_errors_of_the_block_go_out() -> None:
    """An error of the block is raised as it is, also when the lease is lost."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=3)
        with pytest.raises(KeyError, match="'one'"):
            async with limiter:
                raise KeyError("one")

        async def fail() -> None:
            async with limiter:
                store.down = True
                try:
                    await anyio.sleep(100)
                finally:
                    raise KeyError("two")

        with pytest.raises(KeyError, match="'two'"):
            await fail()
        store.down = False
        await anyio.sleep(1)
        async with limiter, anyio.create_task_group():
            pass


async def test_try_acquire() -> None:
    """It asks once, and leaves nothing behind at the server."""
    async with Slots() as store:
        one, two = (RedisConcurrencyLimiter(store, "key", 1) for _ in range(2))
        lease = await one.try_acquire()
        assert isinstance(lease, Lease)
        assert await one.try_acquire() is None
        assert await two.try_acquire() is None
        with pytest.raises(TimeoutError, match=r"had no free slot within 0 s$"):
            await two.acquire(timeout=0)
        lease.release()
        await anyio.sleep(0.1)
        assert store.members == {}
        async with two:
            pass
        assert one.statistics().rejected == 1
        assert two.statistics().rejected == 1
        assert two.statistics().timed_out == 1


async def test_timeouts_and_full_queues() -> None:
    """A wait ends in time; tasks beyond those that may wait are refused unless a slot is free."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, max_waiting=1)
        async with limiter:
            async with anyio.create_task_group() as group:
                group.start_soon(wait_in_vain, limiter)
                await anyio.sleep(0.1)
                with pytest.raises(
                    ConcurrencyLimitError, match=r"lets at most max_waiting=1 wait\. Try again"
                ):
                    await limiter.acquire()
            statistics = limiter.statistics()
            assert (statistics.timed_out, statistics.rejected, statistics.cancelled) == (1, 1, 0)
        none = RedisConcurrencyLimiter(store, "key", 1, max_waiting=0)
        await anyio.sleep(0.1)
        async with none:
            with pytest.raises(ConcurrencyLimitError):
                await none.acquire()
            assert await none.try_acquire() is None


@pytest.mark.parametrize(
    ("tasks", "most", "ran"),
    [(3, 0, 3), (5, 0, 3), (4, 1, 4), (6, 2, 5), (9, 4, 7), (9, 9, 9)],
)
async def test_as_many_wait_as_may(tasks: int, most: int, ran: int) -> None:
    """
    Those that ask at one moment get the free slots, ``max_waiting`` more wait, the rest is refused.

    As with a limiter of one process, though nobody knows what is free until the server answers.
    """
    async with Slots() as store:
        local = ConcurrencyLimiter(3, max_waiting=most)
        shared = RedisConcurrencyLimiter(store, "key", 3, max_waiting=most)
        for limiter in (local, shared):
            ends: list[str] = []
            async with anyio.create_task_group() as group:
                for _ in range(tasks):
                    group.start_soon(hold_for_a_second, limiter, ends)
                    await settle()
            assert (ends.count("ran"), ends.count("refused")) == (ran, tasks - ran)
        statistics = shared.statistics()
        assert (statistics.rejected, statistics.waiting, statistics.in_use) == (tasks - ran, 0, 0)


async def hold_for_a_second(
    limiter: ConcurrencyLimiter | RedisConcurrencyLimiter, ends: list[str]
) -> None:
    """Hold a slot, and note whether there was one."""
    try:
        async with limiter:
            await anyio.sleep(1)
            ends.append("ran")
    except ConcurrencyLimitError:
        ends.append("refused")


async def test_room_in_the_queue_is_for_those_who_asked_first() -> None:
    """One that leaves during the call makes room, but not for those that only try."""
    async with Slots(latency=0.1) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, max_waiting=1)
        async with limiter:
            ends: list[str] = []

            async def waits(name: str, patience: float) -> None:
                with anyio.move_on_after(patience):
                    try:
                        async with limiter:
                            ends.append(f"{name} ran")
                    except ConcurrencyLimitError:
                        ends.append(f"{name} refused")

            async def tries() -> None:
                assert await limiter.try_acquire() is None

            async with anyio.create_task_group() as group:
                group.start_soon(waits, "first", 0.02)
                await settle()
                group.start_soon(tries)
                await settle()
                for name in ("second", "third"):
                    group.start_soon(waits, name, 9)
                    await settle()
                await anyio.sleep(0.5)
                assert ends == ["third refused"]
                assert limiter.statistics().waiting == 1
                group.cancel_scope.cancel()
        assert limiter.statistics().in_use == 0


@explore(seeds=30, exhaustive=1, inject=("checkpoint", "step", "native"))
async def test_full_queue_and_a_task_cancelled_anywhere(victim: Victim) -> None:
    """Whoever is cancelled and when, as many are served as there is room for, and none hangs."""
    async with Slots(latency=0.002) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, max_waiting=1)
        ends: list[str] = []
        async with anyio.create_task_group() as group:
            group.start_soon(hold_for_a_second, limiter, ends)
            group.start_soon(victim, hold_for_a_second, limiter, ends)
            group.start_soon(hold_for_a_second, limiter, ends)
            await anyio.sleep(0.5)
            group.start_soon(hold_for_a_second, limiter, ends)
        assert ends.count("ran") in {1, 2, 3}
        assert len(ends) in {3, 4}
        assert limiter.statistics().waiting == limiter.statistics().in_use == 0
        assert store.most == 1
        async with limiter.hold(timeout=1):
            pass


async def test_full_queue_of_a_server_that_is_down() -> None:
    """With "wait", as many as may wait until it is back, and the others learn that it is down."""
    async with Slots(timeout=0.5) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, max_waiting=2, on_failure="wait")
        store.fail()
        ends: list[object] = []

        async def waits() -> None:
            try:
                async with limiter:
                    ends.append("ran")
            except StoreError:
                ends.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(waits)
                await settle()
            await anyio.sleep(5)
            assert ends == [0.5]
            store.recover()
        assert ends == [0.5, "ran", "ran"]


async def wait_in_vain(limiter: RedisConcurrencyLimiter) -> None:
    """Wait for a slot that does not come."""
    start = anyio.current_time()
    with pytest.raises(TimeoutError, match=r"had no free slot within 2 s$"):
        await limiter.acquire(timeout=2)
    assert anyio.current_time() - start == pytest.approx(2)


async def test_server_is_down_closed() -> None:
    """Tasks that wait fail, and those that ask then; each with an error of its own."""
    async with Slots(timeout=0.5) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1)
        store.fail()
        errors: list[StoreError] = []

        async def work() -> None:
            with pytest.raises(StoreError, match=r"^memory:// did not answer") as caught:
                await limiter.acquire()
            errors.append(caught.value)

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            group.start_soon(work)
        assert errors[0] is not errors[1]
        assert anyio.current_time() <= 1.1
        await work()
        with pytest.raises(StoreError):
            await limiter.try_acquire()
        store.recover()
        async with limiter:
            pass
        assert limiter.statistics().rejected == 4


async def test_server_is_down_wait(caplog: pytest.LogCaptureFixture) -> None:
    """Tasks wait until the server is back, but not those that ask once; the log says so once."""
    caplog.set_level(logging.WARNING, "mtaio.redis")
    async with Slots(timeout=0.5) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, on_failure="wait")
        store.fail()
        async with anyio.create_task_group() as group:
            group.start_soon(hold, limiter, 1)
            await anyio.sleep(0.3)
            for seconds in (0.2, 0.5, 0.5):  # the call that is under way, and two of its own
                start = anyio.current_time()
                with pytest.raises(StoreError):
                    await limiter.try_acquire()
                assert anyio.current_time() - start == pytest.approx(seconds)
            await anyio.sleep(20)
            store.recover()
            await anyio.sleep(1.1)
            assert limiter.statistics().in_use == 1
    (line,) = caplog.messages
    assert "waiting, at memory://>: the server failed (on_failure='wait'): " in line


async def test_server_is_down_open() -> None:
    """Everything runs, also what held a slot; when the server is back it is limited again."""
    async with Slots(timeout=0.5) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=3, on_failure="allow")
        async with anyio.create_task_group() as group:
            group.start_soon(hold, limiter, 20)
            await anyio.sleep(0.1)
            store.fail()
            leases = [await limiter.acquire() for _ in range(3)]
            assert [lease.token for lease in leases] == [0, 0, 0]
            await anyio.sleep(15)
            assert limiter.statistics().in_use == 0
            store.recover()
            await anyio.sleep(1.1)
            lease = await limiter.acquire()
            assert lease.token
            assert await limiter.try_acquire() is None
            lease.release()
            for each in leases:
                assert not each.lost
                each.release()
        assert limiter.statistics().lost == 0
        assert limiter.statistics().acquired_without_server == 3
        assert limiter.statistics().acquired == 5


@pytest.mark.parametrize(
    ("on_failure", "kind"),
    [("raise", StoreError), ("wait", TimeoutError)],
)
async def test_timeout_before_the_server_has_answered(
    on_failure: Any, kind: type[Exception]
) -> None:
    """It says so; and that the server is down, once that is known."""
    async with Slots(timeout=1) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, on_failure=on_failure)
        store.fail()
        with pytest.raises(
            TimeoutError,
            match=r"had no free slot within 0\.5 s: memory:// has not answered yet\.$",
        ):
            await limiter.acquire(timeout=0.5)
        await anyio.sleep(1)
        with pytest.raises(
            kind, match=r"had no free slot within 0\.5 s: memory:// did not answer within 1 s\.$"
        ):
            await limiter.acquire(timeout=0.5)
        store.recover()
        await anyio.sleep(1.1)
        async with limiter:
            with pytest.raises(TimeoutError, match=r"had no free slot within 0\.5 s$"):
                await limiter.acquire(timeout=0.5)
        statistics = limiter.statistics()
        closed = on_failure == "raise"
        assert (statistics.rejected, statistics.timed_out) == ((1, 2) if closed else (0, 3))


async def test_limit_changes() -> None:
    """It may be changed; what waits is let in, and nothing is interrupted."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1)
        limiter.limit = 1
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(hold, limiter, 10)
            await anyio.sleep(1)
            assert limiter.statistics().in_use == 1
            limiter.limit = 3
            await anyio.sleep(0.1)
            assert limiter.statistics().in_use == 3
            limiter.limit = 0
            assert limiter.statistics().limit == limiter.limit == 0
            await anyio.sleep(1)
            assert limiter.statistics().in_use == 3
            assert await limiter.try_acquire() is None


async def test_end_of_the_store() -> None:
    """When the store's block ends, all is given back, holders are cancelled and waiters fail."""
    store = Slots()
    limiter = RedisConcurrencyLimiter(store, "key", 1)
    seen: list[str] = []

    async def holder() -> None:
        with pytest.raises(LeaseLostError, match="the block of its store was left"):
            await hold(limiter, 100)
        seen.append("holder")

    async def waiter() -> None:
        with pytest.raises(RuntimeError, match=r"was left while .* was in use\. Put"):
            await limiter.acquire()
        seen.append("waiter")

    async with anyio.create_task_group() as group, store:
        group.start_soon(holder)
        await anyio.sleep(0.1)
        group.start_soon(waiter)
        await anyio.sleep(0.1)
    assert sorted(seen) == ["holder", "waiter"]
    assert store.members == {}
    async with store, limiter:
        pass
    assert store.members == {}
    async with store, limiter:
        store.down = True  # the last words are not heard, and no error


async def test_end_of_the_store_while_the_server_is_down() -> None:
    """What it let through without the server is over with the block; the next asks the server."""
    store = Slots(timeout=0.5)
    limiter = RedisConcurrencyLimiter(store, "key", 1, on_failure="allow")
    async with store:
        store.down = True
        assert (await limiter.acquire()).token == 0
        store.down = False
    async with store:
        assert (await limiter.acquire()).token
        assert await limiter.try_acquire() is None


async def test_forked_processes_are_two() -> None:
    """A limiter made before a fork is another one in each process."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1)
        other = forked(limiter, store)
        async with limiter:
            assert [await other.try_acquire() for _ in range(3)] == [None] * 3


def test_one_loop_after_another(backend: str) -> None:
    """A limiter serves one event loop after another, and a slot left in one is lost in it."""
    store = Slots()
    limiter = RedisConcurrencyLimiter(store, "key", 1)

    async def main() -> None:
        async with store, limiter:
            pass

    run(main, backend=backend)
    run(main, backend=backend)
    assert limiter.statistics().acquired == 2


def test_loop_that_was_closed_with_a_slot_held(backend: str) -> None:
    """The next one holds what it takes itself, and renews nothing else."""
    store = Slots()
    limiter = RedisConcurrencyLimiter(store, "key", 2)
    loop = asyncio.new_event_loop()
    held = loop.run_until_complete(limiter.acquire())
    loop.close()
    store.forget()  # it has the clock of the loop

    async def second() -> None:
        async with store, limiter:
            assert limiter.statistics().in_use == 1
            held.release()
            assert limiter.statistics().in_use == 1
            await anyio.sleep(limiter.lease)
            assert [each.held for each in store.members.values()] == [1]

    run(second, backend=backend)
    assert limiter.statistics().lost == 0


async def test_slot_released_when_its_loop_is_closed() -> None:
    """It is no longer in use, though nobody can tell the server."""
    limiter = RedisConcurrencyLimiter(Slots(), "key", 1)

    def elsewhere() -> None:
        loop = asyncio.new_event_loop()
        held = loop.run_until_complete(limiter.acquire())
        loop.close()
        assert limiter.statistics().in_use == 1
        held.release()
        assert limiter.statistics().in_use == 0

    await anyio.to_thread.run_sync(elsewhere)


async def test_waits_are_counted() -> None:
    """How many slots were given, how long tasks waited for them in all, and at most."""
    async with Slots(latency=0) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1)
        for seconds, total in (((3, 2, 1), 3 + 5), ((1, 1), 3 + 5 + 1)):
            async with anyio.create_task_group() as group:
                for each in seconds:
                    group.start_soon(hold, limiter, each)
                    await settle()
            statistics = limiter.statistics()
            assert statistics.wait_seconds == pytest.approx(total)
            assert statistics.max_wait_seconds == pytest.approx(5)
        assert statistics.acquired == 5


def test_cancelled_natively_as_a_slot_is_handed_on() -> None:
    """A slot whose task was cancelled when it got it, with all others, goes back to the server."""
    tasks: list[asyncio.Task[None]] = []

    class Cancelling(Slots):
        async def script(self, script: Any, keys: Any, args: Any = ()) -> Any:
            answer = await super().script(script, keys, args)
            if answer[1]:
                for task in tasks:  # before the one of them that is woken now can go on
                    loops.call_in(loops.current_loop(), task.cancel)
            return answer

    async def main() -> None:
        async with Cancelling() as store:
            limiter = RedisConcurrencyLimiter(store, "key", 1)
            lease = await limiter.acquire()
            tasks.extend(asyncio.ensure_future(hold(limiter, 1)) for _ in range(3))
            await anyio.sleep(0.1)
            lease.release()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            tasks.clear()
            with anyio.fail_after(0.1):
                async with limiter:
                    assert limiter.statistics().in_use == 1
            assert limiter.statistics().acquired == 2

    run(main, backend="asyncio")


async def test_cancelled_as_the_server_fails_open() -> None:
    """A task that is cancelled when all are let through is not let through."""

    class Failing(Slots):
        async def script(self, script: Any, keys: Any, args: Any = ()) -> Any:
            await super().script(script, keys, args)
            group.cancel_scope.cancel()
            raise StoreError("it fails", server=self.name)

    async with Failing() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, on_failure="allow")
        async with anyio.create_task_group() as group:
            group.start_soon(hold, limiter, 1)
        statistics = limiter.statistics()
        assert statistics.cancelled == 1
        assert statistics.acquired == statistics.acquired_without_server == 0


async def test_two_loops_at_once(backend: str) -> None:
    """While one event loop uses it, another is told that it cannot."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1)

        async def other() -> None:
            with pytest.raises(
                RuntimeError, match="is in use by tasks of another running event loop"
            ):
                await limiter.acquire()

        async with limiter:
            await anyio.to_thread.run_sync(lambda: anyio.run(other, backend=backend))


async def test_process_stood_still_as_it_was_served() -> None:
    """A slot that is lost before its task goes on cancels the block where it first waits."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=3)
        with pytest.raises(LeaseLostError):
            await late(limiter, store)


async def late(limiter: RedisConcurrencyLimiter, store: Slots) -> None:
    """Enter the block of a lease that has run out."""
    slot = await limiter._acquire(None)
    store.down = True
    await anyio.sleep(4)
    with slot.enter():
        await anyio.sleep(4)
        raise AssertionError
    slot.check()


async def test_decorator() -> None:
    """A decorated function holds a slot, within a timeout."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1)

        @limiter
        async def twice(number: int) -> int:
            assert limiter.statistics().in_use == 1
            await anyio.sleep(1)
            return 2 * number

        @limiter(timeout=0.5)
        async def soon() -> None:
            raise AssertionError

        async with anyio.create_task_group() as group:
            group.start_soon(twice, 1)
            await anyio.sleep(0.1)
            with pytest.raises(TimeoutError):
                await soon()
        assert await twice(2) == 4


async def test_run() -> None:
    """It makes one call in a slot, which is cancelled if the lease is lost."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=3)

        async def twice(number: int) -> int:
            assert limiter.statistics().in_use == 1
            return 2 * number

        assert await limiter.run(twice, 2) == 4

        async def forgotten() -> None:
            store.forget()
            await anyio.sleep(10)

        with pytest.raises(LeaseLostError):
            await limiter.run(forgotten)
        assert limiter.statistics().in_use == 0


async def test_left_in_another_task() -> None:
    """A block that is left where it was not entered is refused."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1)
        with pytest.raises(RuntimeError, match=r"was entered in another task\. Enter and leave"):
            await limiter.__aexit__(None, None, None)
        async with limiter as outer:
            limiter.limit = 2
            async with limiter as inner:
                assert inner.token > outer.token


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, r"^key='' is empty\. Pass a str"),
        (
            {"key": "\ud800"},
            r"^key='\\ud800' has half of a surrogate pair, which cannot be sent\. Pass",
        ),
        ({"limit": 0}, r"^limit=0 is less than 1\. "),
        ({"lease": 0}, r"^lease=0 is not a finite number greater than 0\. "),
        ({"lease": float("inf")}, r"^lease=inf is not a finite number greater than 0\. "),
        (
            {"lease": 1e-9},
            r"^lease=1e-09 is not between 0\.01 and 31536000\.0\. Pass the seconds of",
        ),
        ({"lease": 1e300}, r"^lease=1e\+300 is not between"),
        ({"max_waiting": -1}, r"^max_waiting=-1 is less than 0\. "),
        ({"on_failure": "local"}, r"^on_failure='local' is unknown\. "),
    ],
)
def test_refused_arguments(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused when the limiter is made."""
    given = {"key": "key", "limit": 1, **options}
    with pytest.raises(ValueError, match=message):
        RedisConcurrencyLimiter(Slots(), **given)
    key: Any = 5
    with pytest.raises(TypeError, match=r"^key=5 is an int, not a str\. "):
        RedisConcurrencyLimiter(Slots(), key, 1)
    store: Any = "redis://127.0.0.1"
    with pytest.raises(TypeError, match=r"^store='redis://127\.0\.0\.1' is a str, not a store\. "):
        RedisConcurrencyLimiter(store, "key", 1)


def test_attributes() -> None:
    """What was given can be read."""
    limiter = RedisConcurrencyLimiter(Slots(), "key", 2, lease=5, max_waiting=7)
    assert (limiter.name, limiter.key, limiter.lease, limiter.max_waiting) == ("key", "key", 5, 7)
    assert repr(limiter) == (
        "<RedisConcurrencyLimiter 'key': 0 of 2 slots in use here, 0 waiting, at memory://>"
    )
    assert issubclass(LeaseLostError, MTAIOError)


def test_contract() -> None:
    """It is as good a limiter as one within a process, however its tasks take turns."""
    check_limiter(
        lambda slots: RedisConcurrencyLimiter(Slots(latency=0), "key", slots),
        seeds=20,
        exhaustive=1,
    )


@explore(seeds=40, exhaustive=1)
async def test_cancelled_anywhere(victim: Victim) -> None:
    """Wherever a task is cancelled, its slot comes back, and the others get theirs."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=60)
        other = RedisConcurrencyLimiter(store, "key", 1, lease=60)
        inside = 0

        async def work(which: RedisConcurrencyLimiter) -> None:
            nonlocal inside
            async with which:
                inside += 1
                assert inside == 1
                try:
                    await anyio.sleep(0.01)
                finally:
                    inside -= 1

        async with anyio.create_task_group() as group:
            group.start_soon(work, limiter)
            group.start_soon(victim, work, limiter)
            group.start_soon(work, limiter)
            group.start_soon(work, other)
        await anyio.sleep(0.2)
        assert store.members == {}
        assert anyio.current_time() < 2
        assert limiter.statistics().in_use == limiter.statistics().waiting == 0


@explore(seeds=20, exhaustive=1)
async def test_cancelled_alone(victim: Victim) -> None:
    """What a task is given that is gone goes back, whether it would have waited or not."""
    async with Slots(timeout=0.1) as store:
        limiter = RedisConcurrencyLimiter(store, "key", 1, lease=60, on_failure="wait")
        await victim(hold, limiter, 0.01)
        await anyio.sleep(0.1)
        assert store.members == {}
        async with limiter:
            assert await victim(limiter.try_acquire) is None
        await anyio.sleep(0.1)
        assert store.members == {}
        store.fail()
        with suppress(StoreError):
            await victim(limiter.try_acquire)
        assert limiter.statistics().waiting == 0


@explore(seeds=40, exhaustive=1)
async def test_lost_anywhere() -> None:
    """When leases are lost as tasks wait, hold and come, all of them get a slot in the end."""
    async with Slots() as store:
        limiter = RedisConcurrencyLimiter(store, "key", 2, lease=3)
        ended: list[str] = []

        async def work() -> None:
            try:
                await hold(limiter, 1)
            except LeaseLostError:
                ended.append("lost")
            else:
                ended.append("done")

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(work)
            await anyio.sleep(0.0005)
            store.forget()
            await anyio.sleep(0.999)
            store.forget()
        assert len(ended) == 4
        await anyio.sleep(0.1)
        assert store.members == {}
        assert limiter.statistics().lost == ended.count("lost")
