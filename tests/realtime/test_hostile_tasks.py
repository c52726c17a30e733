"""The tree of tasks of a program that does odd things: no code of it is run, and nothing raises."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast
from weakref import ref

import anyio
import pytest
from anyio.lowlevel import current_token

from mtaio._internal import task_tree
from mtaio.monitoring import TaskNode, TaskTree, tasks, tasks_to_json, tasks_to_text

if TYPE_CHECKING:
    from collections.abc import Callable

run: list[str] = []
"""The code of the program that was run by a reading."""


def nodes(tree: TaskTree) -> dict[str, TaskNode]:
    """Return the tasks, by the last part of their names."""
    found = [node for _, node in tree.walk() if isinstance(node, TaskNode)]
    return {node.name.rpartition(".")[2]: node for node in found}


class Awaited:
    """What waits for ever, and notes every attribute that it is asked for."""

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> None:
        return None

    def throw(self, error: BaseException) -> NoReturn:
        """Be cancelled."""
        raise error

    def close(self) -> None:
        """Be left."""

    def __call__(self, *_: object) -> None:
        """Be called at an exit."""

    def __getattr__(self, name: str) -> NoReturn:
        run.append(name)
        raise ValueError(name)


class Disguised(Awaited):
    """Says that it is of another class, as proxies do."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        run.append("__class__")
        raise ValueError


class Meta(type):
    """Notes what a class is asked for."""

    def __getattr__(cls, name: str) -> NoReturn:
        run.append(name)
        raise ValueError(name)


class OfMeta(Awaited, metaclass=Meta):
    """Has a class that notes it."""


class Wrapper(Awaited):
    """Answers as coroutines do, by code of its own."""

    @property
    def cr_await(self) -> NoReturn:
        """Note it."""
        run.append("cr_await")
        raise ValueError

    cr_frame = cr_running = cr_await


class Own(Wrapper, Coroutine[Any, Any, None]):  # type: ignore[misc] # one error is enough
    """A coroutine of the program's own kind."""

    def send(self, _value: object) -> None:
        """Wait."""


class Nameless(Awaited):
    """Has a class that does not say its module."""

    __module__ = cast("Any", property(lambda _: run.append("__module__")))


@pytest.mark.parametrize("kind", [Awaited, Disguised, OfMeta, Wrapper, Nameless])
@pytest.mark.parametrize("complete", [True, False])
def test_awaitables(kind: type[Awaited], complete: bool) -> None:  # noqa: FBT001
    """What a task awaits is asked for nothing that its own code answers."""

    async def waits() -> None:
        await kind()

    async def main() -> TaskTree:
        task = asyncio.create_task(waits(), name="waits")
        await asyncio.sleep(0)
        run.clear()
        tree = task_tree.read(asyncio.get_running_loop(), complete=complete)
        assert not run
        task.cancel()
        return tree

    assert str(nodes(asyncio.run(main()))["waits"].where).endswith("waits")


def test_coroutines() -> None:
    """Nor is what a task runs in place of a coroutine of Python's."""

    async def main() -> list[str]:
        task = asyncio.create_task(Own())
        await asyncio.sleep(0)
        run.clear()
        tasks()
        task.cancel()
        return [*run]

    assert not asyncio.run(main())


def test_futures() -> None:
    """Nor is a future of the program's own kind."""

    class Job(asyncio.Future[None]):
        def done(self) -> bool:
            run.append("done")
            return super().done()

    async def waits(job: Job) -> None:
        await job

    async def main() -> None:
        job = Job()
        task = asyncio.create_task(waits(job), name="waits")
        await asyncio.sleep(0)
        run.clear()
        assert nodes(tasks())["waits"].state == "waiting"
        assert not run
        job.set_result(None)
        run.clear()
        assert nodes(tasks())["waits"].state == "ready"
        assert not run
        await task

    asyncio.run(main())


def test_futures_of_another_make() -> None:
    """What waits for an object that only behaves like a future waits."""

    class Job:
        _asyncio_future_blocking = True

        def get_loop(self) -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        def add_done_callback(self, fn: Callable[[object], None], **_: object) -> None:
            self.fn = fn

        def result(self) -> None:
            """Be done."""

        def __await__(self) -> Any:
            yield self

    async def waits(job: Any) -> None:
        await job

    async def main() -> None:
        job = Job()
        task = asyncio.create_task(waits(job), name="waits")
        await asyncio.sleep(0)
        assert nodes(tasks())["waits"].state == "waiting"
        asyncio.get_running_loop().call_soon(job.fn, job)
        await asyncio.sleep(0)
        assert task.done()

    asyncio.run(main())


async def to_thread_run_sync() -> None:
    """Be called as the function of trio's is that waits for a thread."""
    worker = Awaited()
    await anyio.sleep_forever()
    del worker


class TaskHandle(Awaited):
    """Is called as AnyIO's wrapper is."""

    async def _run_coro(self) -> None:
        await anyio.sleep_forever()

    _run_coro.__code__ = _run_coro.__code__.replace(co_qualname="TaskHandle._run_coro")


async def in_block_of_odd() -> None:
    """Open a group around a block of an object of an odd class."""

    class Odd(Nameless):
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    async with anyio.create_task_group() as group, Odd() as odd:
        group.start_soon(anyio.sleep_forever)
        await anyio.sleep_forever()
        del odd


@pytest.mark.parametrize("fn", [to_thread_run_sync, TaskHandle()._run_coro, in_block_of_odd])
async def test_functions_with_names_that_are_known(
    fn: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """The variables of a function are looked at if it is a library's, not if it is called so."""

    async def call() -> None:
        await fn()

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        group.start_soon(fn)
        await anyio.wait_all_tasks_blocked()
        run.clear()
        tree = tasks()
        assert not run
        group.cancel_scope.cancel()
    assert "call" in nodes(tree)


async def test_variables_stay() -> None:
    """What the program has got from ``locals()`` is left as it is, before Python 3.13 too."""
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        variables = locals()
        tasks()
        assert variables["group"] is group
        group.cancel_scope.cancel()


async def test_holders_among_odd_things() -> None:
    """What else a holder has is not asked what it is, and does not hide it."""
    lock = anyio.Semaphore(1, max_value=1)

    async def hold() -> None:
        odd = Disguised(), Disguised()
        first, *_ = odd
        async with AsyncExitStack() as stack:
            stack.push(cast("Any", Awaited()))
            stack.callback(cast("Any", Awaited()))
            await stack.enter_async_context(lock)
            await anyio.sleep_forever()
            del first

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(lock.acquire, name="waits")
        await anyio.wait_all_tasks_blocked()
        run.clear()
        found = nodes(tasks())
        assert not run
        group.cancel_scope.cancel()
    wait = found["waits"].wait
    assert wait is not None
    assert wait.holders == (found["hold"].id,)


async def test_cancelled_tasks_are_no_deadlock() -> None:
    """Tasks that would wait for each other, had they not just been cancelled, go on."""
    lock = anyio.Lock()
    seen: list[TaskTree] = []

    async def acquire() -> None:
        async with lock:
            pass

    async def hold() -> None:
        async with lock, anyio.create_task_group() as group:
            groups.append(group)
            group.start_soon(acquire)

    groups: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        seen.append(tasks())
        groups[0].cancel_scope.cancel()
        seen.append(tasks())
    assert [len(tree.cycles) for tree in seen] == [1, 0]


def test_first_exception_may_end_a_wait() -> None:
    """Who waits for the first exception of some tasks is not stuck while one of them goes on."""

    async def main() -> TaskTree:
        async def wait() -> None:
            await asyncio.sleep(0)
            await asyncio.wait(other, return_when=asyncio.FIRST_EXCEPTION)

        async def wait_for(task: asyncio.Task[None]) -> None:
            await task

        other: list[asyncio.Task[Any]] = []
        first = asyncio.create_task(wait())
        other += [asyncio.create_task(wait_for(first)), asyncio.create_task(asyncio.sleep(9))]
        for _ in range(3):
            await asyncio.sleep(0)
        tree = tasks()
        for each in (*other, first):
            each.cancel()
        return tree

    assert asyncio.run(main()).cycles == ()


async def test_names_of_any_length() -> None:
    """However long names are, and whatever is in them, what is shown is short and harmless."""

    async def waits() -> None:
        await anyio.sleep_forever()

    long = "\x1b[31m\u202e\ud800" + "x" * 100_000
    waits.__code__ = waits.__code__.replace(co_qualname=long, co_filename="/" + long)
    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(waits, name=f"{chr(97 + number)}{long}")
        await anyio.wait_all_tasks_blocked()
        tree = tasks()
        group.cancel_scope.cancel()
    text = tasks_to_text(tree, stacks=True)
    assert len(text) < 1_000_000
    assert len(tasks_to_json(tree)) < 2_000_000
    assert all(line.isprintable() for line in text.splitlines())


async def test_error_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is asked to read its tasks, and cannot, goes on; the other thread reads them."""
    loop = current_token()
    here = threading.get_ident()
    before = task_tree._arranged

    def arranged(every: Any) -> Any:
        if threading.get_ident() == here:
            raise RuntimeError
        return before(every)

    monkeypatch.setattr(task_tree, "_arranged", arranged)
    tree = await anyio.to_thread.run_sync(partial(tasks, loop, timeout=20))
    assert not tree.complete
    assert await anyio.to_thread.run_sync(partial(int, 1))  # it goes on


async def test_nothing_of_the_reader_is_kept() -> None:
    """What the task that reads the tree has in its variables is gone with it."""

    class Held:
        pass

    async def reads() -> None:
        held = Held()
        refs.append(ref(held))
        tasks()

    refs: list[ref[Held]] = []
    gc.collect()
    gc.disable()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(reads)
        assert refs[0]() is None
    finally:
        gc.enable()


def test_nothing_is_kept_by_two_readers() -> None:
    """Two threads that read at once, and so see each other, keep nothing alive."""

    class Held:
        pass

    refs: list[ref[Held]] = []
    met, lock = threading.Barrier(2), threading.Lock()

    async def main() -> None:
        held = Held()
        refs.append(ref(held))
        met.wait(20)
        reading = task_tree._Reading(asyncio.get_running_loop(), complete=True)
        with lock:
            reading._stacks()
        met.wait(20)
        reading.forget()
        met.wait(20)

    gc.collect()
    gc.disable()
    try:
        found = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
        for thread in found:
            thread.start()
        for thread in found:
            thread.join(20)
        assert [each() for each in refs] == [None, None]
    finally:
        gc.enable()
