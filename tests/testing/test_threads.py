"""Worker threads and processes under virtual time, which stands still for them."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import from_thread, to_process, to_thread
from anyio.lowlevel import current_token

from mtaio._internal import clock
from mtaio._internal.clock import now
from mtaio.testing import Deadlock, current_simulation, run, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.testing import Simulation

MOMENT = 0.05
"""Real seconds: more than a loop needs to jump ahead of a thread if nothing kept it from it."""


async def while_sleeping(sim: Simulation, work: Callable[[], object]) -> float:
    """Run ``work`` in a worker thread while another task sleeps; return when it was through."""
    ended: list[float] = []

    async def work_in_thread() -> None:
        await to_thread.run_sync(work)
        ended.append(sim.time())

    async with anyio.create_task_group() as group:
        group.start_soon(work_in_thread)
        await settle()
        await anyio.sleep(1000)
    return ended[0]


async def test_thread_freezes_time(sim: Simulation) -> None:
    """No timer fires while a worker thread is at work, and all do afterwards."""
    seen: list[float] = []

    def work() -> None:
        time.sleep(MOMENT)  # real work takes real time
        seen.append(current_simulation().time())

    assert await while_sleeping(sim, work) == 0.0
    assert seen == [0.0]
    assert sim.time() == 1000.0


async def test_from_thread_releases_time(sim: Simulation) -> None:
    """While a worker thread waits in from_thread.run, time passes; then it stands still again."""
    log: list[float] = []

    def work() -> str:
        for _ in range(3):
            from_thread.run(anyio.sleep, 2)
            time.sleep(MOMENT / 5)  # the loop must not run away here
            log.append(sim.time())
        return from_thread.run_sync(threading.current_thread().name.lower)

    assert await while_sleeping(sim, work) == 6.0
    assert log == [2.0, 4.0, 6.0]


async def test_from_thread_passes_arguments_results_and_errors() -> None:
    """Seen from the thread, from_thread.run is what it always was."""

    async def add(a: int, b: int) -> int:
        await anyio.sleep(1)
        return a + b

    async def fail() -> None:
        await anyio.sleep(1)
        raise LookupError("from the loop")

    def work() -> int:
        with pytest.raises(LookupError, match=r"^from the loop$"):
            from_thread.run(fail)
        return from_thread.run(add, 2, 3)

    assert await to_thread.run_sync(work) == 5
    assert now() == 2.0


async def test_thread_passes_arguments_results_and_errors() -> None:
    """Seen from the task, to_thread.run_sync is what it always was, limiter included."""
    limiter = anyio.CapacityLimiter(1)

    def divide(a: int, b: int) -> float:
        assert limiter.borrowed_tokens == 1
        return a / b

    assert await to_thread.run_sync(divide, 1, 4, limiter=limiter) == 0.25
    with pytest.raises(ZeroDivisionError):
        await to_thread.run_sync(divide, 1, 0, limiter=limiter)
    assert limiter.borrowed_tokens == 0


async def test_waiting_for_the_limiter_does_not_freeze_time(sim: Simulation) -> None:
    """A call that is not admitted yet has no thread, so time passes."""
    limiter = anyio.CapacityLimiter(1)
    started: list[float] = []

    async def call() -> None:
        await to_thread.run_sync(lambda: started.append(sim.time()), limiter=limiter)

    async with anyio.create_task_group() as group, limiter:
        group.start_soon(call)
        await anyio.sleep(3)
    assert started == [3.0]


async def test_given_up_thread_freezes_time_until_it_ends(sim: Simulation) -> None:
    """A thread that was abandoned is still real work, and nobody overtakes it."""
    started = anyio.Event()
    gate = threading.Event()
    ended: list[float] = []

    def work() -> None:
        from_thread.run_sync(started.set)
        gate.wait()
        ended.append(sim.time())

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_after, started, scope)
            await to_thread.run_sync(work, abandon_on_cancel=True)
        threading.Timer(MOMENT, gate.set).start()
        await anyio.sleep(10)
    assert ended == [0.0]
    assert sim.time() == 10.0


async def cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    """Cancel a scope when an event has happened."""
    await event.wait()
    scope.cancel()


async def test_timeout_fires_while_the_thread_waits_in_the_loop(sim: Simulation) -> None:
    """A thread that hangs in from_thread.run can be timed out and given up, at the exact moment."""
    ended = threading.Event()

    def work() -> None:
        try:
            from_thread.run(anyio.sleep_forever)
        finally:
            ended.set()

    with anyio.move_on_after(5) as scope:
        await to_thread.run_sync(work, abandon_on_cancel=True)
    assert scope.cancelled_caught
    assert sim.time() == 5.0
    ended.wait(MOMENT)


def test_thread_given_up_outlives_the_run(backend: str) -> None:
    """A thread that ends after its run finds nobody to tell, and breaks nothing."""
    gate = threading.Event()
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def work(started: anyio.Event) -> None:
        threads.append(threading.current_thread())
        from_thread.run_sync(started.set)
        gate.wait()
        ended.set()

    async def scenario() -> None:
        started = anyio.Event()
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(cancel_after, started, scope)
                await to_thread.run_sync(work, started, abandon_on_cancel=True)

    run(scenario, backend=backend)
    gate.set()
    assert ended.wait(5)
    threads[0].join(MOMENT)  # trio keeps its threads for later


def test_hung_thread_is_a_deadlock(backend: str) -> None:
    """A thread that does nothing for the grace of the run fails the test, and shows where it is."""
    gate = threading.Event()

    def hang() -> None:
        gate.wait()

    with pytest.raises(
        Deadlock,
        match=r"^the run is still blocked at t=2\.0 with its clock frozen by worker threads, and "
        r"they have done nothing for 0\.1 s of real time\. Let them end, let them wait in "
        r"anyio\.from_thread\.run\(\), or raise grace=0\.1\.\n",
    ) as caught:
        run(hung, hang, backend=backend, grace=0.1)
    gate.set()
    (thread,) = (stack for stack in caught.value.stacks if stack.kind == "thread")
    assert any(frame.endswith("hang: gate.wait()") for frame in thread.frames)
    assert any("in hung: await" in f for stack in caught.value.stacks for f in stack.frames)
    assert run(hung, lambda: None, backend=backend) is None


async def hung(function: Callable[[], object]) -> None:
    """Run a function in a worker thread, two seconds after the start, with a timer set."""
    await anyio.sleep(2)
    with anyio.move_on_after(60):
        await to_thread.run_sync(function)


def test_hung_thread_of_a_child_task(backend: str) -> None:
    """A hung thread of a child task is a deadlock as well, and the parent ends with its child."""
    gate = threading.Event()
    ended: list[str] = []

    async def child() -> None:
        try:
            await to_thread.run_sync(gate.wait)
        finally:
            ended.append("child")

    async def scenario() -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(child)
        finally:
            ended.append("parent")

    with pytest.raises(
        Deadlock, match=r"^the run is still blocked at t=0\.0 with its clock frozen"
    ):
        run(scenario, backend=backend, grace=0.02)
    gate.set()
    assert ended == ["child", "parent"]


def test_thread_that_lets_the_loop_work_is_not_hung(backend: str) -> None:
    """The grace counts from the last thing that happened, not from the start of the thread."""

    def work() -> None:
        for _ in range(12):
            time.sleep(MOMENT)
            from_thread.run_sync(int)

    run(to_thread.run_sync, work, backend=backend, grace=10 * MOMENT)


async def test_second_simulation_is_refused() -> None:
    """Mtaio's clock follows one simulation; another one in the process is told so."""
    message = r"^a simulation is running in this process already \(t=3\.0\), and mtaio's clock can"
    await anyio.sleep(3)
    with pytest.raises(RuntimeError, match=message):
        await to_thread.run_sync(run, settle)


def test_loop_of_another_thread_is_left_alone(backend: str) -> None:
    """A loop in real time next to the simulation uses its own threads and processes as ever."""

    async def real() -> tuple[int, int]:
        thread = await to_thread.run_sync(threading.get_ident)
        return thread, await to_process.run_sync(os.getpid)

    async def scenario() -> tuple[int, int]:
        with current_simulation().hold():
            return await to_thread.run_sync(anyio.run, real)

    thread, process = run(scenario, backend=backend, grace=60)  # a process takes its time
    assert thread != threading.get_ident()
    assert process != os.getpid()


async def test_thread_in_another_loop_freezes_time(sim: Simulation) -> None:
    """A worker thread that waits in from_thread.run for another loop is at real work."""

    async def real() -> float:
        await anyio.sleep(MOMENT)
        return sim.time()

    with from_thread.start_blocking_portal() as portal:
        token = portal.call(current_token)
        seen: list[float] = []
        work = await while_sleeping(sim, lambda: seen.append(from_thread.run(real, token=token)))
    assert (seen, work) == ([0.0], 0.0)


@pytest.mark.parametrize("by", ["test", "mtaio"])
async def test_foreign_thread_calls_in(sim: Simulation, by: str) -> None:
    """A thread that is none of anyio's may call in, while the test or mtaio holds the clock."""
    results: list[float] = []
    token = current_token()
    called = anyio.Event()

    async def answer() -> float:
        called.set()
        return sim.time()

    def call() -> None:
        time.sleep(MOMENT)  # in which the loop would run away
        results.append(from_thread.run(answer, token=token))

    thread = threading.Thread(target=call)
    with sim.hold() if by == "test" else clock.held():
        thread.start()
        await called.wait()
    await to_thread.run_sync(thread.join)
    assert results == [0.0]


async def test_name_lookup_freezes_time(sim: Simulation) -> None:
    """The threads that look up names for sockets are seen, though the backends start them."""
    found: list[float] = []

    async def look_up() -> None:
        await anyio.getaddrinfo("localhost", 80)
        found.append(sim.time())

    async with anyio.create_task_group() as group:
        group.start_soon(look_up)
        await anyio.sleep(10)
    assert found == [0.0]


async def test_process_freezes_time(sim: Simulation) -> None:
    """A worker process holds the clock from its start to its result."""
    limiter = anyio.CapacityLimiter(1)
    ended: list[float] = []

    async def work(limiter: anyio.CapacityLimiter | None) -> None:
        assert await to_process.run_sync(divmod, 17, 5, limiter=limiter) == (3, 2)
        ended.append(sim.time())

    async with anyio.create_task_group() as group:
        group.start_soon(work, limiter)
        group.start_soon(work, None)
        await anyio.sleep(10)
    assert ended == [0.0, 0.0]
    assert sim.time() == 10.0
