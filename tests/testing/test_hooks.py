"""
Canaries: each private hook on which virtual time stands, as it must be.

When one of these, or of their like in test_asyncio and test_trio, fails after an upgrade, virtual
time may be broken in ways that other tests show less clearly. A hook that is missing is told to the
user.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import inspect
import sys
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_process, to_thread
from anyio._core._eventloop import get_async_backend

from mtaio.testing import (
    Deadlock,
    ExplorationWarning,
    Livelock,
    Schedule,
    Victim,
    _threads,
    assert_checkpoints,
    current_simulation,
    explore,
    run,
)
from mtaio.testing._asyncio import CALLBACK, READY, shows_tasks, task_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_anyio_thread_entry_points(backend: str) -> None:
    """Anyio's calls to and from threads go through these classmethods, with these parameters."""
    owner = get_async_backend(backend)
    assert isinstance(vars(owner)[_threads.TO_THREAD], classmethod)
    assert isinstance(vars(owner)[_threads.FROM_THREAD], classmethod)
    to_thread_names = list(inspect.signature(getattr(owner, _threads.TO_THREAD)).parameters)
    assert to_thread_names == ["func", "args", "abandon_on_cancel", "limiter"]
    from_thread_names = list(inspect.signature(getattr(owner, _threads.FROM_THREAD)).parameters)
    assert from_thread_names == ["func", "args", "token"]
    process_names = list(inspect.signature(to_process.run_sync).parameters)
    assert process_names == ["func", "args", "cancellable", "limiter"]


@pytest.mark.parametrize("name", [_threads.TO_THREAD, _threads.FROM_THREAD])
def test_missing_thread_entry_point(
    backend: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An anyio without them is refused, in words."""
    monkeypatch.setattr(get_async_backend(backend), name, lambda: None)
    with pytest.raises(
        RuntimeError,
        match=rf"^mtaio\.testing cannot see worker threads: this version of anyio has no "
        rf"classmethod {name} in <class .*Backend'>\. Use a version that mtaio was tested with\.$",
    ):
        run(anyio.sleep, 1, backend=backend)


async def test_hidden_thread_is_counted() -> None:
    """A thread that trio starts on its own account is seen as those of anyio are."""
    await to_thread.run_sync(int)
    await anyio.getaddrinfo("localhost", 80)


# ---- the steps of tasks --------------------------------------------------------------------------


def test_asyncio_ready_queue() -> None:
    """Asyncio keeps what is ready in ``_ready``, a deque of handles, and takes them on its left."""
    loop: Any = asyncio.SelectorEventLoop()
    try:
        assert type(loop._ready) is deque
        handle = loop.call_soon(int)
        assert list(loop._ready) == [handle]
        assert handle._callback is int
        assert handle._cancelled is False
        handle.cancel()
        assert handle._cancelled is True
    finally:
        loop.close()


@pytest.mark.parametrize("kind", [asyncio.Task, type("Own", (asyncio.Task,), {})])
def test_asyncio_steps_show_their_task(kind: Any) -> None:
    """Every way in which a task is made to run shows the task; its public methods are no steps."""
    loop = asyncio.SelectorEventLoop()
    seen: list[object] = []

    class Queue(deque[asyncio.Handle]):
        def popleft(self) -> asyncio.Handle:
            handle = super().popleft()
            callback: Any = getattr(handle, CALLBACK)
            seen.append(task_of(callback))
            return handle

    async def main() -> object:
        await asyncio.sleep(0)  # a bare yield
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future  # woken by a future
        task: Any = asyncio.current_task()
        loop.call_soon(task.get_name)
        loop.call_soon(task.cancel)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return task
        return None

    try:
        setattr(loop, READY, Queue())
        loop.set_task_factory(lambda loop, coro, **options: kind(coro, loop=loop, **options))
        task = loop.run_until_complete(main())
    finally:
        loop.close()
    assert isinstance(task, kind)
    # Started, gone on, set_result, woken, get_name, cancel, woken by the cancelled future.
    assert seen[:7] == [task, task, None, task, None, None, task]
    assert task_of(int) is None


def test_asyncio_looks_the_queue_up_each_time() -> None:
    """The loop looks its queue up each time, so that it may be replaced while it turns."""
    loop: Any = asyncio.SelectorEventLoop()
    order: list[str] = []

    def replace() -> None:
        loop._ready = deque(reversed(loop._ready))

    try:
        loop.call_soon(replace)
        loop.call_soon(order.append, "first")
        loop.call_soon(order.append, "second")
        loop.call_soon(loop.stop)
        loop.call_soon(order.append, "third")
        loop.run_forever()
    finally:
        loop.close()
    assert order == ["third", "second", "first"]


def test_trio_run_queue() -> None:
    """Trio keeps what can run in ``runner.runq``, a deque, and copies it in each turn."""
    trio = pytest.importorskip("trio")
    from mtaio.testing._trio import running_runner  # noqa: PLC0415 - it needs trio

    async def main() -> None:
        runner = running_runner()
        assert type(runner.runq) is deque
        task = trio.lowlevel.current_task()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            (child,) = nursery.child_tasks
            assert list(runner.runq) == [child]
        assert task not in runner.runq
        assert task.coro.cr_running

    assert running_runner() is None
    trio.run(main)


def test_trio_scopes_of_a_task() -> None:
    """``Task._cancel_status`` leads to each scope around a task, whose shield can be lowered."""
    trio = pytest.importorskip("trio")

    async def main() -> None:
        with trio.CancelScope() as outer, trio.CancelScope(shield=True) as inner:
            status = trio.lowlevel.current_task()._cancel_status
            assert status._scope is inner
            assert status.parent._scope is outer
            outer.cancel()
            await trio.lowlevel.checkpoint()
            inner.shield = False
            with pytest.raises(trio.Cancelled):
                await trio.lowlevel.checkpoint()
            raise LookupError

    with pytest.raises(LookupError):
        trio.run(main)


# ---- without them --------------------------------------------------------------------------------


class OtherQueue:
    """What asyncio might keep its handles in one day."""

    def __init__(self) -> None:
        self._handles: deque[asyncio.Handle] = deque()

    def __len__(self) -> int:
        return len(self._handles)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handles, name)


def lose_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an asyncio that keeps what is ready in something else."""
    other = SimpleNamespace(**{**vars(collections), "deque": OtherQueue})
    monkeypatch.setattr(asyncio.base_events, "collections", other)


def lose_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an asyncio whose handles do not say whether they are cancelled."""
    monkeypatch.setattr(asyncio, "Handle", type("Handle", (), {CALLBACK: None}))


def lose_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an asyncio whose steps do not show their task."""
    monkeypatch.setattr(asyncio, "Task", type("Task", (), {}))


def lose_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a trio that keeps its runner elsewhere."""
    monkeypatch.delitem(sys.modules, "trio._core._run")


LOST = [
    ("asyncio", lose_queue, r"loop\._ready"),
    ("asyncio", lose_handle, r"Handle\._cancelled"),
    ("asyncio", lose_tasks, r"__self__ on the callback of a task's step"),
    ("trio", lose_runner, r"runner\.runq"),
]


@pytest.fixture(params=LOST, ids=lambda lost: lost[1].__name__)
def lost(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return a backend that has lost a hook, and the hook's name."""
    name, lose, hook = request.param
    pytest.importorskip(name)
    shows_tasks.cache_clear()
    lose(monkeypatch)
    yield [name, hook]
    shows_tasks.cache_clear()


def test_schedule_without_a_hook(lost: list[str]) -> None:
    """A schedule is refused, in words that name the hook, and no half of a loop is left open."""
    backend, hook = lost
    for _ in range(2):
        with pytest.raises(
            RuntimeError,
            match=rf"^mtaio\.testing cannot choose or see the steps of tasks on {backend}: this "
            rf"version of it has no {hook} of the kind that mtaio was tested with\. Virtual time "
            rf"works all the same; leave schedule, sim\.always\(\) and Victim out, or use another ",
        ):
            run(anyio.sleep, 1, backend=backend, schedule=Schedule())
    gc.collect()


def test_virtual_time_without_a_hook(lost: list[str]) -> None:
    """Virtual time works all the same: sleeping, threads, deadlocks, and victims at checkpoints."""
    backend, _ = lost

    async def scenario() -> float:
        await anyio.sleep(3600)
        await to_thread.run_sync(int)
        victim = Victim("checkpoint", at=1)
        await victim(anyio.sleep, 5)
        assert victim.cancelled
        await current_simulation().advance(5)
        return anyio.current_time()

    assert run(scenario, backend=backend) == 3605
    with pytest.raises(Deadlock):
        run(anyio.sleep_forever, backend=backend)


def test_steps_without_a_hook(lost: list[str]) -> None:
    """What needs to see steps is refused where it is asked for; the run goes on, or fails so."""
    backend, _ = lost
    message = r"^mtaio\.testing cannot choose or see the steps"

    async def scenario() -> str:
        with pytest.raises(RuntimeError, match=message):
            await Victim("step")(anyio.sleep, 1)
        with pytest.raises(RuntimeError, match=message), assert_checkpoints():
            pytest.fail("it must be refused")
        assert current_simulation().trace == ()
        await anyio.sleep(1)
        current_simulation().always(lambda: True)
        return "it must be refused"

    with pytest.raises(RuntimeError, match=message) as caught:
        run(scenario, backend=backend)
    assert caught.value.__cause__ is None


def test_exploration_without_a_hook(lost: list[str]) -> None:
    """An explored test runs once, in virtual time, with one warning, even if it needs steps."""
    backend, hook = lost
    times: list[float] = []

    @explore(seeds=3, exhaustive=1, backends=[backend])
    async def test(victim: Victim) -> None:
        await victim(anyio.sleep, 5)
        times.append(anyio.current_time())
        current_simulation().always(lambda: True)
        pytest.fail("it must be refused")

    with pytest.warns(
        ExplorationWarning,
        match=rf"^test_exploration_without_a_hook\.<locals>\.test is not explored: mtaio\.testing "
        rf"cannot choose or see the steps of tasks on {backend}: this version of it has no {hook}",
    ) as caught:
        test()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert times == [5.0]


def test_failure_without_a_hook(lost: list[str]) -> None:
    """A test that fails plainly fails without exploration as well, and can be seen again."""
    backend, _ = lost

    @explore(backends=[backend])
    async def test() -> None:
        raise LookupError

    with pytest.warns(ExplorationWarning), pytest.raises(LookupError) as caught:
        test()
    assert caught.value.__notes__ == [f"to see it again: pytest --mtaio-replay {backend}"]


@pytest.mark.filterwarnings(
    # What a run leaves behind that had to be broken off cannot be closed, and Python says so.
    "ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("hook", ["STATUS", "SCOPE"])
def test_trio_without_scopes(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trio that hides a task's scopes costs a clean end of a spin behind a shield, no more."""
    trio = pytest.importorskip("trio")
    from mtaio.testing import _trio  # noqa: PLC0415 - it needs trio

    assert trio
    monkeypatch.setattr(_trio, hook, "_gone")

    async def scenario() -> None:
        with anyio.CancelScope(shield=True):
            while True:
                await anyio.lowlevel.checkpoint()

    with pytest.raises(Livelock):
        run(scenario, backend="trio", max_turns=50)
    gc.collect()
