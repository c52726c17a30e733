"""The thread that samples, in real time, on each event loop: from start to stop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from mtaio._internal import clock, loops
from mtaio.events import EventEmitter
from mtaio.monitoring import ResourceMonitor
from tests.backends import BACKENDS
from tests.logging.tools import until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

LOOPS: Final = (*BACKENDS, *(["uvloop"] if find_spec("uvloop") else []))


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Return the name of each event loop in turn."""
    name: str = request.param
    return name


def run(loop: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``main`` in real time."""
    backend, options = ("asyncio", {"use_uvloop": True}) if loop == "uvloop" else (loop, {})
    anyio.run(main, backend=backend, backend_options=options)


def quick(**options: Any) -> ResourceMonitor:
    """Return a monitor that samples often, with one threshold that is exceeded."""
    monitor = ResourceMonitor(0.02, loop_interval=0.01, **{"blocked_after": 30, **options})
    monitor.gauge("level", lambda: 2)
    monitor.set_threshold("level", 1)
    return monitor


def threads() -> list[str]:
    """Return the names of the monitors' threads."""
    return sorted(each.name for each in threading.enumerate() if each.name.startswith("mtaio.mon"))


async def happens(met: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something is so."""
    give_up = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < give_up, "it never happened"
        await anyio.sleep(0.002)


def test_nothing_outlives_the_block(loop: str) -> None:
    """There is one thread inside the block, and no thread and no task after it."""
    monitor = quick()
    told: list[object] = []
    monitor.on_threshold_exceeded(lambda *what: told.append(what))

    async def main() -> None:
        count = loops.count_tasks(loops.current_loop())
        async with monitor:
            assert threads() == ["mtaio.monitoring"]
            await happens(lambda: told and monitor.statistics().samples > 2)
            stats = await monitor.get_current_stats()
            assert stats.loop.tasks == count
            assert 0 < stats.loop.delay_p50_seconds <= stats.loop.delay_max_seconds
            assert abs(stats.timestamp - time.time()) < 20
            assert monitor.answering(20)
        assert threads() == []
        assert loops.count_tasks(loops.current_loop()) == count
        before = monitor.statistics()
        await anyio.sleep(0.1)
        assert monitor.statistics() == before

    run(loop, main)


def test_several_threads(loop: str) -> None:
    """Each monitor has a thread with its name."""
    many = [ResourceMonitor(0.02, loop_interval=0.01, name=f"m{n}") for n in range(4)]

    async def main() -> None:
        for each in many:
            await each.start()
        assert threads() == [f"mtaio.monitoring m{n}" for n in range(4)]
        await happens(lambda: all(each.statistics().samples > 2 for each in many))
        for each in many:
            await each.stop()
        assert threads() == []

    run(loop, main)


def test_stop_waits_for_what_was_posted(loop: str) -> None:
    """A handler whose event was found just before the stop has run when it returns."""
    monitor = quick()
    told: list[object] = []

    @monitor.on_threshold_exceeded
    async def handler(*what: object) -> None:
        await anyio.sleep(0.05)
        told.append(what)

    async def main() -> None:
        async with monitor:
            await happens(lambda: monitor.alerts)
        assert len(told) == 1

    run(loop, main)


def test_stop_in_a_handler_ends_the_thread(loop: str) -> None:
    """The thread has ended when the stop returns, in a handler as well."""
    monitor = quick()

    async def main() -> None:
        stopped = anyio.Event()

        @monitor.on_threshold_exceeded
        async def stop(*_: object) -> None:
            await monitor.stop()
            assert threads() == []
            stopped.set()

        await monitor.start()
        await stopped.wait()

    run(loop, main)
    assert monitor.statistics().handlers_failed == 0


@pytest.mark.parametrize("second", LOOPS)
def test_loops_that_end_without_a_stop(loop: str, second: str) -> None:
    """The thread ends with its loop; the next loop may start the monitor at once."""
    monitor = quick()

    async def main() -> None:
        await monitor.start()
        before = monitor.statistics().samples
        await happens(lambda: monitor.statistics().samples > before + 1)
        assert len(threads()) == 1

    run(loop, main)
    run(second, main)
    until(lambda: not monitor.running)
    until(lambda: not threads())
    assert not monitor.answering(1e9)
    assert monitor.current_stall() is None
    run(loop, monitor.stop)
    run(loop, monitor.stop)


def test_two_loops_at_once(loop: str) -> None:
    """A monitor runs in one loop at a time; another loop may look, and may stop it."""
    monitor = quick()
    started, stop = threading.Event(), threading.Event()

    async def main() -> None:
        async with monitor:
            started.set()
            await happens(stop.is_set)

    async def second() -> None:
        with pytest.raises(
            RuntimeError, match=r"^cannot start <.*>: it runs in another event loop"
        ):
            await monitor.start()
        await monitor.tick()
        assert (await monitor.get_current_stats()).memory.total > 0
        assert monitor.running
        await monitor.stop()
        assert not monitor.running

    thread = threading.Thread(target=run, args=[loop, main])
    thread.start()
    assert started.wait(20)
    run(loop, second)
    stop.set()
    thread.join()
    assert threads() == []


def test_two_loops_at_one_moment(loop: str) -> None:
    """Of two loops that start a monitor at once, and then stop it at once, one runs it."""
    for _ in range(20):
        monitor = quick()
        together = threading.Barrier(2)
        came: list[str] = []

        async def main(monitor: ResourceMonitor, together: threading.Barrier) -> None:
            together.wait(20)
            try:
                await monitor.start()
                came.append("started")  # noqa: B023 - joined below
            except RuntimeError:
                came.append("refused")  # noqa: B023 - joined below
            together.wait(20)
            await monitor.stop()

        both = [
            threading.Thread(target=run, args=[loop, partial(main, monitor, together)])
            for _ in range(2)
        ]
        switching = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for each in both:
                each.start()
            for each in both:
                each.join()
        finally:
            sys.setswitchinterval(switching)
        assert sorted(came) == ["refused", "started"]
    assert threads() == []


def test_another_loop_is_faster(loop: str) -> None:
    """A start finds the monitor running if another loop started it meanwhile."""
    monitor = quick()
    running, stop = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        async with monitor:
            running.set()
            await happens(stop.is_set)

    faster = threading.Thread(target=run, args=[loop, elsewhere])

    def let_it_start() -> float:
        if faster.ident is None:
            faster.start()
            assert running.wait(20)
        return 1

    monitor.gauge("other", let_it_start)  # read in the midst of a start

    async def main() -> None:
        with pytest.raises(
            RuntimeError, match=r"^cannot start <.*>: it runs in another event loop"
        ):
            await monitor.start()
        assert monitor.running

    run(loop, main)
    stop.set()
    faster.join()
    assert threads() == []


@pytest.mark.skipif("asyncio" not in BACKENDS, reason="it is about asyncio")
def test_task_factory_that_takes_no_context() -> None:
    """Handlers run in a loop whose task factory knows a loop, a coroutine and a name alone."""
    monitor = quick()
    told = threading.Event()
    monitor.on_threshold_exceeded(lambda *_: told.set())

    async def main() -> None:
        # From Python 3.14 on, the name of AnyIO's tasks is handed to the factory.
        asyncio.get_running_loop().set_task_factory(
            lambda loop, coro, *, name=None: asyncio.Task(coro, loop=loop, name=name)
        )
        async with monitor:
            await happens(told.is_set)

    run("asyncio", main)


@pytest.mark.skipif("asyncio" not in BACKENDS, reason="it is about asyncio")
def test_loop_that_pauses() -> None:
    """Between two runs of a loop, as in a notebook, samples go on, and there is no stall."""
    monitor = quick(blocked_after=0.5)
    paused = asyncio.new_event_loop()
    paused.run_until_complete(monitor.start())
    paused.run_until_complete(happens(lambda: monitor.statistics().samples > 2))
    before = monitor.statistics().samples
    until(lambda: monitor.statistics().samples > before + 40)
    assert monitor.current_stall() is None
    assert monitor.running
    paused.run_until_complete(happens(lambda: monitor.answering(0.05)))
    paused.run_until_complete(monitor.stop())
    assert [stall for stall in monitor.stalls if stall.cause != "not_running"] == []
    paused.run_until_complete(monitor.start())
    paused.close()
    until(lambda: not monitor.running)


def test_blocked_loop(loop: str) -> None:
    """A stall is told while it lasts, and once it is over, with its line."""
    monitor = quick(blocked_after=0.05)
    during: list[str] = []

    def block() -> None:
        until(monitor.current_stall)
        stall = monitor.current_stall()
        assert stall is not None
        during.append(stall.place)
        until(lambda: not monitor.answering(0.05))
        # Samples go on meanwhile, and count the stall and the time without an answer.
        until(lambda: monitor.latest is not None and monitor.latest.loop.delay_max_seconds >= 0.05)
        until(lambda: monitor.values()["loop.blocked"] >= 1)

    async def main() -> None:
        told = anyio.Event()
        monitor.on_loop_blocked(lambda stall: told.set() if stall.place == during[0] else None)
        async with monitor:
            await happens(lambda: monitor.statistics().samples)
            block()
            await told.wait()
            await happens(lambda: monitor.values()["loop.blocked_seconds"] >= 0.05)

    run(loop, main)
    assert " in " in during[0]
    assert during[0] in {stall.place for stall in monitor.stalls}


def test_stop_right_after_a_stall(loop: str) -> None:
    """A stall that lasts when the monitor is stopped is told before the stop returns."""
    monitor = quick(blocked_after=0.05)
    told: list[float] = []
    emitter = EventEmitter()
    emitter.on("monitor.loop_blocked", lambda event: told.append(event.data.seconds))
    monitor.forward_to(emitter)

    async def main() -> None:
        async with monitor:
            await happens(lambda: monitor.statistics().samples)
            until(monitor.current_stall)
        assert told
        assert monitor.current_stall() is None

    run(loop, main)
    assert max(told) >= 0.05


def test_log_of_a_stall(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged while the loop stands still, with its stack."""
    monitor = quick(blocked_after=0.05)

    def logged() -> bool:
        return any("has not answered for" in each.getMessage() for each in caplog.records)

    async def main() -> None:
        async with monitor:
            await happens(lambda: monitor.statistics().samples)
            until(logged)

    run(BACKENDS[0], main)
    (record, *_) = (each for each in caplog.records if "test_threads.py" in each.getMessage())
    assert record.levelname == "WARNING"
    assert "in main\n" in record.getMessage()


def test_log_of_a_stall_that_is_over(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its length is logged when it is over: what was logged before is how long it had lasted."""
    monitor = quick(blocked_after=0.05)

    def logged() -> set[str]:
        return {each.getMessage() for each in caplog.records}

    def expected() -> set[str]:
        return {
            f"the event loop was blocked for {stall.seconds:.2f} s ({stall.cause}): {stall.place}"
            for stall in monitor.stalls
        }

    async def main() -> None:
        async with monitor:
            await happens(lambda: monitor.statistics().samples)
            until(monitor.current_stall)
            await happens(lambda: logged() & expected())

    run(loop, main)


def test_first_sample_is_waited_for(loop: str) -> None:
    """Just after the start there is a sample within a tenth of a second and a little."""
    monitor = ResourceMonitor(3600)

    async def main() -> None:
        first = await monitor.get_current_stats()
        assert await monitor.get_current_stats() is not first
        async with monitor:
            stats = await monitor.get_current_stats()
            assert stats is not first
            assert 0 <= stats.cpu.usage_percent <= 100

    run(loop, main)


@pytest.mark.parametrize("early", [False, True])
def test_first_sample_is_of_the_time_since_the_start(loop: str, early: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What the process did before the start does not count, also if figures were asked for then."""
    monitor = ResourceMonitor(3600)
    if early:
        monitor.set_threshold("cpu_usage", 90)
    end = time.thread_time() + 0.3
    while time.thread_time() < end:
        pass

    async def main() -> None:
        before = time.process_time()
        async with monitor:
            await happens(lambda: monitor.statistics().samples)
            used = time.process_time() - before
            assert monitor.latest is not None
            assert monitor.latest.cpu.process_percent <= 100 * used / 0.05
            assert await monitor.get_current_stats() is monitor.latest

    run(loop, main)


def test_sample_of_the_thread_is_waited_for(loop: str) -> None:
    """Whoever asks just after the start gets the thread's first sample if that comes in time."""
    samples: list[int] = []

    async def main() -> None:
        monitor = quick()
        async with monitor:
            await monitor.get_current_stats()
            samples.append(monitor.statistics().samples)

    for _ in range(50):  # on a busy machine the thread may come too late; not every time
        run(loop, main)
        if any(samples):
            return
    pytest.fail("the thread's sample was never waited for")


def test_sample_that_fails_in_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and counted, and sampling goes on."""
    monitor = quick()
    rule = monitor._thresholds._rules["level"]
    threshold = rule.threshold

    async def main() -> None:
        async with monitor:
            rule.threshold = None  # type: ignore[assignment]  # what could fail otherwise?
            await happens(lambda: monitor.statistics().failed and caplog.records)
            rule.threshold = threshold
            before = monitor.statistics().samples
            await happens(lambda: monitor.statistics().samples > before + 1)

    run(BACKENDS[0], main)
    assert "could not take a sample" in caplog.text
    assert "AttributeError" in caplog.text


def test_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """Where there can be no more threads the monitor does not run, and may be started later."""
    monitor = quick()

    def refuse(_: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
                await monitor.start()
        assert not monitor.running
        await monitor.stop()
        async with monitor:
            await happens(lambda: monitor.statistics().samples)

    run(loop, main)


def test_another_clock_in_another_loop() -> None:
    """A loop that kept a time of its own, once, takes no thread from the loops after it."""
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")
    monitor = ResourceMonitor(10)

    async def virtual() -> None:
        async with monitor:
            await trio.sleep(100.5)
            assert threads() == []
        assert monitor.statistics().samples == 10

    async def real() -> None:
        async with quick():
            assert threads() == ["mtaio.monitoring"]

    before = clock.read
    try:
        trio.run(virtual, clock=testing.MockClock(autojump_threshold=0))
        assert clock.read is not before
        for each in LOOPS:
            run(each, real)
    finally:
        clock.follow(before)
    assert sys.modules["trio"] is trio
