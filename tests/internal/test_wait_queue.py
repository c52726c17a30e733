"""The queue in which tasks wait: in order, each woken once, and nothing lost by who gives up."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import loops
from mtaio._internal.wait_queue import WaitQueue
from mtaio.testing import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskGroup


class Line:
    """Tasks that wait in a queue, by name, and what became of each."""

    def __init__(self, queue: WaitQueue[str] | None = None) -> None:
        self.queue = WaitQueue[str]() if queue is None else queue
        self.woken: list[str] = []
        self.cancelled: list[str] = []
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def wait(self, name: str) -> None:
        """Wait, and pass on what it was woken for if cancelled after that."""
        with anyio.CancelScope() as self.scopes[name]:
            self.queue.attach(self)
            try:
                await self.queue.wait(name)
            except BaseException:
                self.cancelled.append(name)
                raise
            self.woken.append(name)

    async def start(self, group: TaskGroup, *names: str) -> None:
        """Let tasks join one after another."""
        for name in names:
            group.start_soon(self.wait, name)
            await settle()

    async def wake_each(self) -> None:
        """Wake one after another: trio has those woken together resume in any order."""
        while self.queue.wake_next():
            await settle()


async def test_first_come_first_served() -> None:
    """Tasks are woken in the order in which they joined, each once."""
    line = Line()
    assert not line.queue.wake_next()
    async with anyio.create_task_group() as group:
        await line.start(group, "a", "b", "c")
        assert [*line.queue.waiters.values()] == ["a", "b", "c"]
        assert line.queue.wake_next()
        assert len(line.queue) == 2
        await settle()
        assert line.woken == ["a"]
        await line.wake_each()
    assert line.woken == ["a", "b", "c"]
    assert not line.queue.wake_next()


async def test_all_at_once() -> None:
    """Every task that waits is woken, and the queue is empty there and then."""
    line = Line()
    async with anyio.create_task_group() as group:
        await line.start(group, "a", "b", "c")
        line.queue.wake_all()
        assert len(line.queue) == 0
    assert sorted(line.woken) == ["a", "b", "c"]


async def test_one_in_the_middle_is_woken() -> None:
    """Whoever wakes may choose whom, and the others keep their places."""
    line = Line()
    async with anyio.create_task_group() as group:
        await line.start(group, "a", "b", "c")
        middle = next(each for each, name in line.queue.waiters.items() if name == "b")
        assert line.queue.wake(middle)
        await settle()
        await line.wake_each()
    assert line.woken == ["b", "a", "c"]


async def test_leaving_from_the_middle() -> None:
    """A task that gives up leaves the others as they were, and wakes nobody."""
    line = Line()
    async with anyio.create_task_group() as group:
        await line.start(group, "a", "b", "c")
        line.scopes["b"].cancel()
        await settle()
        assert [*line.queue.waiters.values()] == ["a", "c"]
        assert line.woken == []
        await line.wake_each()
    assert (line.woken, line.cancelled) == (["a", "c"], ["b"])


async def test_woken_then_cancelled_passes_on() -> None:
    """What was handed to a task that is cancelled before it resumes goes to the next."""
    line = Line()
    async with anyio.create_task_group() as group:
        await line.start(group, "a", "b", "c")
        line.queue.wake_next()
        line.scopes["a"].cancel()
        await settle()
        # AnyIO lets a task that is to resume anyway go on; trio and asyncio's own cancel do not.
        assert line.woken + line.cancelled in (["a"], ["b", "a"])
        assert len(line.woken) == 1
        line.queue.wake_all()
    assert sorted(line.woken + line.cancelled) == ["a", "b", "c"]


async def test_cancelled_then_woken_goes_to_the_next() -> None:
    """A task that is being cancelled is passed over by whoever wakes the next."""
    line = Line()
    async with anyio.create_task_group() as group:
        await line.start(group, "a", "b", "c")
        line.scopes["a"].cancel()
        assert line.queue.wake_next()
        await settle()
        assert len(line.woken) == 1
        assert "a" in line.woken + line.cancelled
        assert len(line.queue) == 3 - len(line.woken + line.cancelled)
        line.queue.wake_all()
    assert len(line.woken) + len(line.cancelled) == 3


async def test_wakes_nobody_if_all_are_being_cancelled() -> None:
    """Then there is nobody to hand anything to, and the caller is told so."""
    line = Line()
    async with anyio.create_task_group() as group:
        await line.start(group, "a", "b")
        group.cancel_scope.cancel()
        await settle()
        assert not line.queue.wake_next()
    assert (line.woken, sorted(line.cancelled)) == ([], ["a", "b"])


async def native(backend: str, line: Line, *names: str) -> list[asyncio.Task[None]]:
    """Start tasks of asyncio's own that wait."""
    if backend != "asyncio":
        pytest.skip("Task.cancel() is asyncio's")
    tasks = [asyncio.ensure_future(line.wait(name)) for name in names]
    await settle()
    return tasks


async def test_native_cancellation_after_waking(backend: str) -> None:
    """``Task.cancel()`` of a task that was woken: the next gets what it was woken for."""
    line = Line()
    first, second = await native(backend, line, "a", "b")
    line.queue.wake_next()
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert (line.woken, line.cancelled) == (["b"], ["a"])


async def test_native_cancellation_before_waking(backend: str) -> None:
    """``Task.cancel()`` and then a wake: it goes to the next at once."""
    line = Line()
    first, second = await native(backend, line, "a", "b")
    first.cancel()
    assert line.queue.wake_next()
    assert len(line.queue) == 0
    await asyncio.gather(first, second, return_exceptions=True)
    assert (line.woken, line.cancelled) == (["b"], ["a"])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
async def test_eager_tasks(backend: str) -> None:
    """A task that starts within ``create_task`` joins there and then, and waits as others do."""
    line = Line()
    if backend != "asyncio":
        pytest.skip("only asyncio has eager tasks")
    loop: Any = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(vars(asyncio)["eager_task_factory"])
    try:
        tasks = [loop.create_task(line.wait(name)) for name in ("a", "b")]
        assert [*line.queue.waiters.values()] == ["a", "b"]
        line.queue.wake_next()
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        loop.set_task_factory(before)
    assert (line.woken, line.cancelled) == (["b"], ["a"])


# ---- one loop after another ----


def left_behind(queue: WaitQueue[str], backend: str) -> list[Coroutine[Any, Any, None]]:
    """Run a loop in which a call waits when it ends; return the call."""
    kept: list[Coroutine[Any, Any, None]] = []

    async def main() -> None:
        queue.attach("the first")
        call = queue.wait("a")
        call.send(None)
        kept.append(call)

    anyio.run(main, backend=backend)
    return kept


def test_a_loop_that_is_over_is_forgotten(backend: str) -> None:
    """Its tasks are in nobody's way, and a call that is closed later passes nothing on."""
    queue = WaitQueue[str]()
    kept = left_behind(queue, backend)
    assert len(queue) == 1
    assert queue.is_over()

    async def main() -> None:
        assert queue.attach("the second")
        assert not queue.attach("the second")
        async with anyio.create_task_group() as group:
            group.start_soon(queue.wait, "b")
            await checkpoint()
            await checkpoint()
            kept.clear()
            gc.collect()
            assert [*queue.waiters.values()] == ["b"]
            assert queue.wake_next()

    anyio.run(main, backend=backend)
    assert not queue.is_over()


def test_calls_where_the_loop_is_over(backend: str) -> None:
    """They are made here, with nobody left to wake."""
    queue = WaitQueue[str]()
    kept = left_behind(queue, backend)
    assert queue.belongs_here()
    called: list[int] = []
    queue.call_there(lambda: called.append(len(queue)))
    assert called == [0]
    assert not queue.call_in_loop(called.clear)
    kept.clear()


def test_the_next_loop_attaches_during_a_call(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is called as the next loop takes over is called there, and forgets none of its tasks."""
    queue = WaitQueue[str]()
    kept = left_behind(queue, backend)
    kept.clear()
    queue.forget()
    called: list[list[str]] = []

    async def main() -> None:
        def attach_meanwhile(_: object) -> bool:
            queue.attach(queue)
            group.start_soon(queue.wait, "b")
            return True

        async with anyio.create_task_group() as group:
            with monkeypatch.context() as patch:
                patch.setattr(loops, "is_over", attach_meanwhile)
                queue.call_there(lambda: called.append([*queue.waiters.values()]))
            await checkpoint()
            await checkpoint()
            assert [*queue.waiters.values()] == ["b"]
            assert queue.wake_next()

    anyio.run(main, backend=backend)
    assert called == [[]]


def test_forget(backend: str) -> None:
    """Whoever knows that the loop is over can say so."""
    queue = WaitQueue[str]()
    kept = left_behind(queue, backend)
    queue.forget()
    assert len(queue) == 0
    assert not queue.is_over()
    kept.clear()


def in_thread(fn: Callable[[], object]) -> object:
    """Return what ``fn`` returns in a thread of its own."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(fn()))
    thread.start()
    thread.join(10)
    return results[0]


async def test_two_loops(backend: str) -> None:
    """A second loop, while tasks of the first wait, is an error that says what to do."""
    line = Line()

    async def attach() -> str:
        with pytest.raises(
            RuntimeError, match=r"^'it' is in use by tasks of another running event loop"
        ):
            line.queue.attach("it")
        return "refused"

    async with anyio.create_task_group() as group:
        await line.start(group, "a")
        assert in_thread(lambda: anyio.run(attach, backend=backend)) == "refused"
        assert line.queue.runs_here()
        assert in_thread(line.queue.runs_here) is False
        assert in_thread(line.queue.belongs_here) is False
        line.queue.wake_all()


async def test_calls_from_threads() -> None:
    """A thread has the loop of the tasks wake them, soon; in that loop it is done at once."""
    line = Line()
    assert line.queue.belongs_here()
    async with anyio.create_task_group() as group:
        await line.start(group, "a", "b")
        in_thread(lambda: line.queue.call_there(line.queue.wake_next))
        assert len(line.queue) == 2
        await settle()
        assert line.woken == ["a"]
        line.queue.call_there(line.queue.wake_next)
        assert len(line.queue) == 0
    assert line.woken == ["a", "b"]


def test_a_closed_loop_wakes_nobody() -> None:
    """Waking its tasks is no error, and they count as not woken, so that nothing is passed on."""
    queue = WaitQueue[str]()

    async def main() -> None:
        queue.attach("it")
        for name in "ab":
            call = queue.wait(name)
            calls.append((call, asyncio.ensure_future(call)))
        await asyncio.sleep(0)

    calls: list[tuple[Coroutine[Any, Any, None], asyncio.Task[None]]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # tasks destroyed, it would say
    loop.run_until_complete(main())
    loop.close()
    first, second = queue.waiters
    assert not queue.wake(first)
    assert not first.woken
    assert not queue.wake_next()
    assert not second.woken
    for call, _ in calls:
        call.close()


def test_a_loop_that_refuses_to_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else asyncio refuses, such as a call in a wrong thread in debug mode, is raised."""
    queue = WaitQueue[str]()

    async def main() -> None:
        queue.attach("it")
        tasks.append(asyncio.ensure_future(queue.wait("a")))
        await asyncio.sleep(0)

    def refuse(*_args: object, **_kwargs: object) -> None:
        msg = "refused"
        raise RuntimeError(msg)

    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # as above
    loop.run_until_complete(main())
    monkeypatch.setattr(loop, "call_soon", refuse)
    with pytest.raises(RuntimeError, match=r"^refused"):
        queue.wake_next()
    loop.close()
