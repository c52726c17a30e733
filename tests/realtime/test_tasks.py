"""The tree of tasks, on every event loop: in the loop, from other threads, and while it changes."""

from __future__ import annotations

import asyncio
import gc
import queue
import sys
import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from mtaio._internal import task_tree
from mtaio._internal.backend import SeenTask
from mtaio._internal.frames import frames_here
from mtaio._internal.gil import has_gil
from mtaio.core import TaskExecutor
from mtaio.monitoring import GroupNode, TaskNode, TaskTree, tasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

LINES = Path(__file__).read_text(encoding="utf-8").splitlines()


def place(mark: str, function: str) -> str:
    """Return the place of the line with a mark."""
    (number,) = (at for at, text in enumerate(LINES, 1) if text.endswith(f"# {mark}"))
    return f"{__file__}:{number} in {function}"


def definition(function: Callable[..., object]) -> str:
    """Return the place at which a function begins."""
    code = function.__code__
    return f"{__file__}:{code.co_firstlineno} in {code.co_qualname}"


def nodes(tree: TaskTree) -> dict[str, TaskNode]:
    """Return the tasks, by the last part of their names."""
    found = [node for _, node in tree.walk() if isinstance(node, TaskNode)]
    return {node.name.rpartition(".")[2]: node for node in found if node.kind == "task"}


def threads(tree: TaskTree) -> list[TaskNode]:
    """Return the threads that tasks wait for."""
    found = [node for _, node in tree.walk() if isinstance(node, TaskNode)]
    return [node for node in found if node.kind == "thread"]


def outline(tree: TaskTree, name: str) -> list[tuple[int, str]]:
    """Return what is below a task: how deep, and the names of tasks and the kinds of groups."""
    below = TaskTree(backend="trio", taken_at=0.0, count=0, roots=nodes(tree)[name].children)
    return [
        (depth, node.kind if isinstance(node, GroupNode) else node.name.rpartition(".")[2])
        for depth, node in below.walk()
    ]


def groups(tree: TaskTree, name: str) -> list[GroupNode]:
    """Return the groups that a task has opened."""
    return [node for node in nodes(tree)[name].children if isinstance(node, GroupNode)]


@pytest.fixture
def kind(flavour: str) -> str:
    """Return what the loop calls a group of tasks."""
    return "nursery" if flavour == "trio" else "task group"


async def numbers(ready: anyio.Event) -> AsyncGenerator[int]:
    """Wait before the first number."""
    ready.set()
    await anyio.sleep_forever()  # number
    yield 1


async def reader(ready: anyio.Event) -> None:
    """Wait for an item."""
    async for _ in numbers(ready):
        pass


async def sleeper() -> None:
    """Sleep for ever."""
    await anyio.sleep_forever()  # sleep


async def leaver() -> None:
    """Wait for tasks at the end of a block."""
    async with anyio.create_task_group() as group:  # leave
        group.start_soon(sleeper)


async def test_a_tree(flavour: str, kind: str) -> None:
    """Tasks are below the groups of those who started them, with their lines and states."""
    ready = anyio.Event()
    trees: list[TaskTree] = []

    async def parent() -> None:
        async with anyio.create_task_group() as outer:  # outer
            async with anyio.create_task_group() as inner:  # inner
                with nullcontext(object()) as mine:  # which is not asked for a group
                    inner.start_soon(reader, ready)
                    await ready.wait()
                    await anyio.wait_all_tasks_blocked()
                    outer.start_soon(leaver)
                    inner.start_soon(sleeper)
                    trees.append(tasks())  # read
                    await anyio.wait_all_tasks_blocked()
                    trees.append(tasks())
                    assert mine
                inner.cancel_scope.cancel()
            outer.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(parent)
    first, second = trees
    assert first.backend == {"asyncio+uvloop": "uvloop", "trio": "trio"}.get(flavour, "asyncio")
    assert first.complete
    inside = [(0, kind), (1, "reader"), (1, "sleeper")]
    assert outline(first, "parent") == [(0, kind), (1, "leaver"), *inside]
    below = [(0, kind), (1, "leaver"), (2, kind), (3, "sleeper")]
    assert outline(second, "parent") == [*below, *inside]
    assert second.count == first.count + 1
    assert second.count == sum(isinstance(node, TaskNode) for _, node in second.walk())

    function = parent.__qualname__
    opened = [place("outer", function), place("inner", function)]
    assert [group.where for group in groups(second, "parent")] == opened
    assert [group.where for group in groups(second, "leaver")] == [place("leave", "leaver")]

    before, after = nodes(first), nodes(second)
    states = {name: before[name].state for name in ("parent", "reader", "leaver")}
    assert states == {"parent": "running", "reader": "waiting", "leaver": "ready"}
    assert before["leaver"].wait is before["parent"].wait is None
    assert after["leaver"].state == after["reader"].state == "waiting"
    assert after["leaver"].wait is not None
    assert before["leaver"].function == after["leaver"].function == definition(leaver)
    assert before["parent"].where == before["parent"].stack[-1] == place("read", function)
    assert after["reader"].where == place("number", "numbers")
    stack = [each for each in after["reader"].stack if __file__ in each]
    assert stack[-1] == place("number", "numbers")
    assert len(stack) == 2
    assert len({after["parent"].id, before["parent"].id, after["leaver"].id}) == 2


async def test_a_cancelled_task() -> None:
    """One that was cancelled and has not ended says so, also while it waits in a shield."""
    cleaning, ends = anyio.Event(), anyio.Event()

    async def cleaner() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                cleaning.set()
                await ends.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(cleaner)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await cleaning.wait()
            node = nodes(tasks())["cleaner"]
        ends.set()
    assert node.state == "cancelled"
    assert node.wait is not None


async def test_a_group_that_another_object_holds(kind: str) -> None:
    """The line is that of the block of the object that has opened the group."""

    async def item(value: int) -> int:
        seen.append(tasks())
        return value

    async def parent() -> None:
        async with TaskExecutor(max_workers=1) as executor:  # executor
            await (await executor.submit(item, 1))

    seen: list[TaskTree] = []
    async with anyio.create_task_group() as group:
        group.start_soon(parent)
    (opened,) = groups(seen[0], "parent")
    assert opened.kind == kind
    assert opened.where == place("executor", parent.__qualname__)


async def test_worker_threads() -> None:
    """The thread that a task waits for is below it, with its lines."""
    begun, ends = threading.Barrier(3), threading.Event()

    def work() -> None:
        begun.wait(20)
        ends.wait(20)  # work

    async def caller() -> None:
        await to_thread.run_sync(work)

    async with anyio.create_task_group() as group:
        group.start_soon(caller)
        group.start_soon(caller)
        while begun.n_waiting < 2:  # noqa: ASYNC110 - threads wait there
            await anyio.sleep(0.001)
        tree = tasks()
        begun.wait(20)
        ends.set()
    for node in (node for _, node in tree.walk()):
        if isinstance(node, TaskNode) and node.function == definition(caller):
            (thread,) = node.children
            assert isinstance(thread, TaskNode)
            assert (thread.kind, thread.state) == ("thread", "running")
            assert str(thread.where).endswith(f" in {work.__qualname__}")
            assert thread.function == definition(work)
    assert len({thread.id for thread in threads(tree)}) == 2
    assert all(thread.id != node.id for thread in threads(tree) for node in nodes(tree).values())


class Compiled:
    """A coroutine without a frame, as compilers make them, around one of Python's."""

    __slots__ = ("cr_await",)

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.cr_await = coroutine

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.cr_await.send(None)

    def send(self, value: object) -> Any:
        """Resume."""
        return self.cr_await.send(value)

    def throw(self, error: BaseException) -> Any:
        """Cancel."""
        return self.cr_await.throw(error)


async def test_compiled_code() -> None:
    """What has no frame is in the stack by its name, and so is what it awaits."""

    async def caller() -> None:
        await Compiled(sleeper())

    async with anyio.create_task_group() as group:
        group.start_soon(caller)
        await anyio.wait_all_tasks_blocked()
        node = nodes(tasks())["caller"]
        group.cancel_scope.cancel()
    at = node.stack.index("Compiled")
    assert node.stack[at - 1].endswith(caller.__qualname__)
    assert node.stack[at + 1] == node.where == place("sleep", "sleeper")


async def test_compiled_code_that_runs(flavour: str) -> None:
    """A task that takes a step in what has no frame is there, and nothing is known of the place."""
    if flavour == "trio":
        pytest.skip("its tasks begin in functions of Python's")

    class Running(Compiled):
        __slots__ = ("cr_running",)
        cr_running: bool

        def close(self) -> None:
            self.cr_await.close()

    async def look() -> None:
        task = asyncio.current_task()
        seen.extend(node for node in nodes(tasks()).values() if node.id == id(task))

    seen: list[TaskNode] = []
    running = Running(look())
    running.cr_running = True
    await asyncio.create_task(cast("Coroutine[Any, Any, None]", running))
    (node,) = seen
    assert (node.state, node.where, node.stack) == ("running", None, ())


async def test_nothing_is_kept() -> None:
    """What a task held is gone with it, without the garbage collector, after it was looked at."""

    class Held:
        pass

    async def holder() -> None:
        held: Held | None = Held()
        refs.append(ref(held))
        await goes_on.wait()
        held = None
        await ends.wait()

    refs: list[ref[Any]] = []
    goes_on, ends = anyio.Event(), anyio.Event()
    gc.collect()
    gc.disable()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(holder)
            await anyio.wait_all_tasks_blocked()
            tree = tasks()
            assert not gc.isenabled()  # as it was
            goes_on.set()
            await anyio.wait_all_tasks_blocked()
            assert refs[0]() is None
            ends.set()
        assert "holder" in nodes(tree)
    finally:
        gc.enable()
    tasks()
    assert gc.isenabled()


# ---- from other threads ----


async def test_a_loop_that_answers() -> None:
    """Another thread has it read its own tasks, so that nothing is missing."""
    loop = current_token()
    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await anyio.wait_all_tasks_blocked()
        tree = await to_thread.run_sync(partial(tasks, loop, timeout=20))
        group.cancel_scope.cancel()
    assert tree.complete
    assert nodes(tree)["sleeper"].where == place("sleep", "sleeper")


def in_thread(read: Callable[[], TaskTree]) -> TaskTree:
    """Block the loop until another thread has read its tasks."""
    found: list[TaskTree] = []
    thread = threading.Thread(target=lambda: found.append(read()))
    thread.start()
    thread.join(20)
    return found[0]


async def test_a_blocked_loop(kind: str) -> None:
    """It is read from the other thread: all its tasks, and the line at which it is blocked."""
    loop = current_token()
    seen: list[TaskTree] = []

    async def blocker() -> None:
        async with anyio.create_task_group() as group:  # blocker
            group.start_soon(sleeper)
            await anyio.wait_all_tasks_blocked()
            seen.extend(in_thread(partial(tasks, loop, timeout=seconds)) for seconds in (0, 0.01))
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(blocker)
    await checkpoint()  # what was asked of it is not wanted any more
    for tree in seen:
        assert not tree.complete
        assert outline(tree, "blocker") == [(0, kind), (1, "sleeper")]
        node = nodes(tree)["blocker"]
        assert node.state == "running"
        assert str(node.where).endswith(" in in_thread")
        assert groups(tree, "blocker")[0].where == place("blocker", blocker.__qualname__)
        assert nodes(tree)["sleeper"].where == place("sleep", "sleeper")


async def test_a_loop_that_changes_meanwhile() -> None:
    """However tasks start and end while it is read, what was there all the time is there."""
    loop = current_token()
    seen: list[TaskTree] = []
    done = threading.Event()

    def look() -> None:
        try:
            seen.extend(tasks(loop, timeout=0) for _ in range(30))
        finally:
            done.set()

    async def nested(depth: int) -> None:
        async with anyio.create_task_group() as group:
            await checkpoint()
            if depth:
                group.start_soon(nested, depth - 1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper)
            await anyio.wait_all_tasks_blocked()
            thread = threading.Thread(target=look)
            thread.start()
            while not done.is_set():
                async with anyio.create_task_group() as some:
                    for _ in range(10):
                        some.start_soon(nested, 2)
            thread.join(20)
            group.cancel_scope.cancel()
    finally:
        sys.setswitchinterval(interval)
    assert len(seen) == 30
    assert all("sleeper" in nodes(tree) for tree in seen if tree.count)
    assert any(tree.count for tree in seen)


async def test_a_task_that_ends_meanwhile(flavour: str) -> None:
    """Of a task that is over when it is looked at nothing is said."""
    if flavour == "trio":
        pytest.skip("it lets nobody else make tasks")

    class Ending(asyncio.Task[None]):
        """It is over when its name has been read: by one thread, while another runs it."""

        named = False

        def get_name(self) -> str:
            self.named = True
            return super().get_name()

        def done(self) -> bool:
            return self.named or super().done()

    loop = asyncio.get_running_loop()
    ending = Ending(sleeper(), loop=loop, name="ending")
    staying = loop.create_task(sleeper(), name="staying")
    found = nodes(tasks())
    ending.cancel()
    staying.cancel()
    await asyncio.sleep(0)
    assert "staying" in found
    assert "ending" not in found


async def test_a_future_of_another_make(flavour: str) -> None:
    """What awaits a future that is not in C waits, and no code of the future's is run for it."""
    if flavour == "trio":
        pytest.skip("it has no futures")
    futures: Any = asyncio.futures

    class Own(futures._PyFuture):  # type: ignore[misc] # whatever it is
        asked = 0

        def done(self) -> bool:
            self.asked += 1
            return bool(super().done())

    own: Any = Own(loop=asyncio.get_running_loop())

    async def caller() -> None:
        await own

    task = asyncio.create_task(caller(), name="caller")
    await asyncio.sleep(0)
    asked = own.asked
    node = nodes(tasks())["caller"]
    assert (node.state, own.asked) == ("waiting", asked)
    own.set_result(None)
    await task


async def test_a_loop_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, flavour: str) -> None:
    """If looking fails again and again there is an empty tree, and no error."""
    loop = current_token()
    monkeypatch.setattr(task_tree, "_arranged", None)
    tree = in_thread(partial(tasks, loop, timeout=0))
    assert (tree.count, tree.roots, tree.complete) == (0, (), False)
    with pytest.raises(TypeError):  # in the loop itself nothing can have changed
        tasks()
    if flavour != "trio":  # which ends when a call into it fails
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        tree = await to_thread.run_sync(partial(tasks, loop, timeout=20))
        assert not tree.complete


async def test_without_the_lock(monkeypatch: pytest.MonkeyPatch, flavour: str) -> None:
    """Where another thread must not look at coroutines, there are names alone."""
    loop = current_token()
    for module in ("task_tree", "backend._asyncio", "backend._trio"):
        loaded = sys.modules.get(f"mtaio._internal.{module}")
        if loaded is not None:
            monkeypatch.setattr(loaded, "has_gil", lambda: False)
    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await anyio.wait_all_tasks_blocked()
        tree = in_thread(partial(tasks, loop, timeout=0))
        here = tasks()
        group.cancel_scope.cancel()
    assert here.complete
    assert nodes(here)["sleeper"].where == place("sleep", "sleeper")
    assert not tree.complete
    if flavour == "trio":
        assert tree.count == 0
    else:
        node = nodes(tree)["sleeper"]
        assert (tree.count, node.stack, node.where, node.state) == (here.count, (), None, "waiting")


async def test_two_loops(flavour: str) -> None:
    """Each loop has its own tasks, be it read in its own thread or in the other's."""
    here = current_token()
    seen: list[TaskTree] = []

    async def other() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper, name="other")
            await anyio.wait_all_tasks_blocked()
            there = current_token()
            seen.append(tasks())
            seen.append(tasks(here, timeout=0))
            seen.extend(in_thread(partial(tasks, loop, timeout=0)) for loop in (there, here))
            group.cancel_scope.cancel()

    def run() -> None:
        anyio.run(other, backend=flavour.partition("+")[0])

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper, name="mine")
        await anyio.wait_all_tasks_blocked()
        tasks()  # in these tests trio is a guest, which others find once it was read here
        await to_thread.run_sync(run)
        group.cancel_scope.cancel()
    assert [tree.complete for tree in seen] == [True, False, False, False]
    for tree, name in zip(seen, ("other", "mine", "other", "mine"), strict=True):
        assert {"other", "mine"} & nodes(tree).keys() == {name}


def test_a_loop_that_is_over(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """It has no tasks, and nobody waits for its answer."""
    name, options = anyio_backend

    async def token() -> object:
        return current_token()

    tree = tasks(anyio.run(token, backend=name, backend_options=options), timeout=20)  # type: ignore[arg-type]
    assert tree.count == 0


# ---- what asyncio alone has ----


async def only(name: str, work: Callable[[], Awaitable[object]]) -> TaskTree:
    """Return the tree while a task of asyncio's does something that does not end."""

    async def do() -> None:
        await work()

    task = asyncio.create_task(do(), name=name)
    for _ in range(5):
        await asyncio.sleep(0)
    tree = tasks()
    task.cancel()
    await asyncio.wait([task])
    return tree


def named(name: str) -> asyncio.Task[None]:
    """Start a task of asyncio's."""
    return asyncio.create_task(sleeper(), name=name)


async def groups_of_asyncio() -> None:
    """Wait for a group of asyncio's own."""
    async with asyncio.TaskGroup() as group:  # native
        group.create_task(sleeper(), name="one")
        group.create_task(sleeper(), name="two")


async def gathered() -> None:
    """Wait for some."""
    await asyncio.gather(named("one"), named("two"))


async def waited() -> None:
    """Wait for the first of some."""
    await asyncio.wait([named("one"), named("two")], return_when="FIRST_COMPLETED")


async def shielded() -> None:
    """Wait for one that goes on."""
    await asyncio.shield(named("one"))


async def timed() -> None:
    """Wait for one for some time."""
    await asyncio.wait_for(named("one"), 20)


async def awaited() -> None:
    """Await a task, whose end calls more than that."""
    task = named("one")
    task.add_done_callback(with_empty_cell())
    task.add_done_callback(list[object]().append)
    await task


def with_empty_cell() -> Callable[[asyncio.Task[None]], object]:
    """Return a callback that refers to a variable that is not set."""
    shown = ""

    def end(task: asyncio.Task[None]) -> object:
        return task if task.done() else shown

    return FunctionType(end.__code__, {}, closure=(CellType(),))


async def in_executor() -> None:
    """Wait for a thread of asyncio's."""
    await asyncio.to_thread(ends.wait, 20)


ends = threading.Event()

ONE = [(0, "one")]
TWO = [(0, "one"), (0, "two")]


@pytest.mark.parametrize(
    ("work", "below"),
    [
        (groups_of_asyncio, [(0, "task group"), (1, "one"), (1, "two")]),
        (gathered, TWO),
        (waited, TWO),
        (shielded, ONE),
        (timed, ONE),
        (awaited, ONE),
    ],
)
async def test_tasks_of_asyncio(
    work: Callable[[], Awaitable[object]], below: list[tuple[int, str]], flavour: str
) -> None:
    """They are below the group, or below the task that alone awaits them."""
    if flavour == "trio":
        pytest.skip("it has none of this")
    tree = await only("parent", work)
    assert sorted(outline(tree, "parent")) == below
    for group in groups(tree, "parent"):
        assert group.where == place("native", "groups_of_asyncio")
    for task in asyncio.all_tasks():
        if task.get_name() in {"one", "two"}:
            task.cancel()


async def test_tasks_that_nobody_is_known_to_have_started(flavour: str) -> None:
    """They are roots: also those that two tasks await, and of those that await each other one."""
    if flavour == "trio":
        pytest.skip("it has none of this")
    await checkpoint()

    async def wait_for(*names: str) -> None:
        await asyncio.sleep(0)
        await asyncio.shield(known[names[0]])  # else to cancel those in a circle has no end

    waits = {"first": "shared", "second": "shared", "egg": "hen", "hen": "egg", "own": "own"}
    known: dict[str, asyncio.Task[None]] = {"shared": named("shared")}
    for name, other in waits.items():
        known[name] = asyncio.create_task(
            sleeper() if name == "own" else wait_for(other), name=name
        )
    for _ in range(5):
        await asyncio.sleep(0)
    tree = tasks()
    roots = [node.name for node in tree.roots if isinstance(node, TaskNode) and node.name in known]
    (one,) = {"egg", "hen"} & {*roots}
    assert sorted(roots) == sorted([one, "first", "own", "second", "shared"])
    assert outline(tree, one) == [(0, "hen" if one == "egg" else "egg")]
    for task in known.values():
        task.cancel()
    await asyncio.wait(known.values())


async def test_a_thread_of_asyncio(flavour: str) -> None:
    """A thread of an executor of the standard library is found by the future that it works for."""
    if flavour == "trio":
        pytest.skip("it has none of this")
    ends.clear()
    task = asyncio.create_task(in_executor(), name="caller")
    other = asyncio.create_task(sleeper(), name="other")
    while not threads(tasks()):  # noqa: ASYNC110 - it is the subject
        await asyncio.sleep(0.001)
    tree = tasks()
    ends.set()
    await task
    other.cancel()
    (thread,) = nodes(tree)["caller"].children
    assert isinstance(thread, TaskNode)
    assert thread.kind == "thread"
    assert thread.stack[-1].endswith(" in Condition.wait")
    assert nodes(tree)["other"].children == ()


def test_a_guest_and_its_host() -> None:
    """Both loops of one thread are read in it, whichever of them takes a step."""
    trio = pytest.importorskip("trio")
    seen: list[TaskTree] = []

    def look(token: EventLoopToken) -> TaskTree:
        tree = tasks(token, timeout=0)
        while not tree.count:  # between two turns no thread is in the guest
            tree = tasks(token, timeout=0)
        return tree

    async def main() -> None:
        host = current_token()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        async def guest() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(sleeper, name="guest")
                await anyio.wait_all_tasks_blocked()
                token = current_token()
                seen.extend((tasks(), tasks(host)))
                seen.append(await to_thread.run_sync(look, token))
                loop.call_soon(lambda: seen.append(tasks(token)))
                await trio.sleep(0.01)
                group.cancel_scope.cancel()

        task = named("host")
        await asyncio.sleep(0)
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        (await done).unwrap()
        task.cancel()

    asyncio.run(main())
    own, host, from_thread, from_host = seen
    assert [tree.complete for tree in seen] == [True, True, False, True]
    for tree in (own, from_thread, from_host):
        assert tree.backend == "trio"
        assert {"guest", "host"} & nodes(tree).keys() == {"guest"}
    assert host.backend == "asyncio"
    assert {"guest", "host"} & nodes(host).keys() == {"host"}


def test_two_runs_of_trio() -> None:
    """Runs in two threads are told apart by who has read neither of them before."""
    pytest.importorskip("trio")
    tokens: dict[str, EventLoopToken] = {}
    ready, over = threading.Semaphore(0), threading.Event()

    async def main(name: str) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper, name=name)
            await anyio.wait_all_tasks_blocked()
            tokens[name] = current_token()
            ready.release()
            await to_thread.run_sync(over.wait)
            group.cancel_scope.cancel()

    names = {"one", "two"}
    threads = [
        threading.Thread(target=partial(anyio.run, main, name, backend="trio")) for name in names
    ]
    for thread in threads:
        thread.start()
    for _ in names:
        assert ready.acquire(timeout=20)
    found = {name: nodes(tasks(token, timeout=0)).keys() & names for name, token in tokens.items()}
    over.set()
    for thread in threads:
        thread.join()
    assert found == {name: {name} if has_gil() else set() for name in names}


def test_a_guest_between_two_turns() -> None:
    """While no thread is in a guest, its tasks cannot be found from another one."""
    trio = pytest.importorskip("trio")
    turns: queue.Queue[Callable[[], object]] = queue.Queue()
    tokens: list[EventLoopToken] = []
    outcomes: list[Any] = []

    async def guest() -> None:
        tokens.append(current_token())
        await trio.lowlevel.checkpoint()

    trio.lowlevel.start_guest_run(
        guest, run_sync_soon_threadsafe=turns.put, done_callback=outcomes.append
    )
    while not tokens:
        turns.get(timeout=20)()
    tree = in_thread(partial(tasks, tokens[0], timeout=0))
    while not outcomes:
        turns.get(timeout=20)()
    outcomes[0].unwrap()
    assert (tree.count, tree.complete) == (0, False)


# ---- shapes ----


async def test_deep_trees() -> None:
    """A tree may be deeper than calls may be."""
    seen: list[TaskTree] = []

    async def nested(left: int) -> None:
        async with anyio.create_task_group() as group:
            if left:
                group.start_soon(nested, left - 1)
            else:
                limit = sys.getrecursionlimit()
                sys.setrecursionlimit(len(frames_here()) + 60)
                try:
                    seen.append(tasks())
                    assert max(at for at, _ in seen[0].walk()) >= 2 * 200
                    assert len(repr(seen[0])) < 1_000
                finally:
                    sys.setrecursionlimit(limit)

    await nested(200)
    assert seen[0].count >= 200


def test_what_does_not_fit_together() -> None:
    """Tasks that have started each other, as a loop that runs on may show, are all there once."""
    group = object()
    every = [
        SeenTask(
            number,
            str(number),
            None,
            "waiting",
            waits=True,
            awaited=None,
            starter=3 - number,
            group=group,
        )
        for number in (1, 2)
    ]
    order, roots, below = task_tree._arranged(every)
    assert [seen.id for seen in order] == [1, 2]
    assert [seen.id for seen in roots] == [1]
    assert [seen.id for each in below[1].values() for seen in each.tasks] == [2]


# ---- what is refused ----


def test_no_loop() -> None:
    """Where no loop runs, and for what is not a token, the error names the way out."""
    with pytest.raises(RuntimeError, match=r"^tasks\(\) was called where no event loop runs"):
        tasks()
    with pytest.raises(TypeError, match=r"^loop=<object .* is not"):
        tasks(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_bad_timeout(timeout: float) -> None:
    """The timeout is a number of seconds."""
    with pytest.raises(ValueError, match=r"^timeout="):
        tasks(timeout=timeout)


async def test_sleep_without_end() -> None:
    """A sleep for ever says so on every loop, whatever the loop's clock makes of it."""
    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await anyio.sleep(0.01)
        wait = nodes(tasks())["sleeper"].wait
        group.cancel_scope.cancel()
    assert wait is not None
    assert (wait.of, wait.seconds) == ("no end", None)
