"""Artificial deadlocks, one of each kind: who is in the cycle, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anyio

from mtaio._internal import loops, task_tree
from mtaio._internal.task_tree import TaskNode
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.resilience import AdaptiveLimiter, Pipeline
from mtaio.resources import ConcurrencyLimiter, ResourceLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup

Block: TypeAlias = "AbstractAsyncContextManager[object, Any]"


class Read(NamedTuple):
    """What a tree says, with names in place of ids."""

    waits: dict[str, tuple[str, set[str]]]
    """What each task waits for, and the holders."""
    seconds: dict[str, float | None]
    cycles: list[list[str]]
    longest: list[str]


def read(*, complete: bool = True) -> Read:
    """Read the tasks of the running loop, whose names are all different; or as if from outside."""
    tree = task_tree.read(loops.current_loop(), complete=complete)
    nodes = {node.id: node for _, node in tree.walk() if isinstance(node, TaskNode)}
    names = {each: node.name for each, node in nodes.items()}
    waits = {node.name: node.wait for node in nodes.values() if node.wait is not None}
    return Read(
        {
            name: (wait.what, {names[holder] for holder in wait.holders})
            for name, wait in waits.items()
        },
        {name: wait.seconds for name, wait in waits.items()},
        [[names[task] for task in cycle] for cycle in tree.cycles],
        [names[task] for task in tree.longest],
    )


Start: TypeAlias = Callable[["TaskGroup"], None]


class Stuck(NamedTuple):
    """Tasks that a function starts and that never go on."""

    start: Start
    cycle: set[str]
    waits: dict[str, tuple[str, set[str]]]


# ---- two that take two things in the opposite order ----


def crossed(
    one: Block, other: Block, what: str, around: Callable[[Block], Block] = lambda block: block
) -> Stuck:
    """Have two tasks enter two blocks, each in another order, with others around them."""

    async def enter(first: Block, second: Block) -> None:
        async with around(first):
            await anyio.wait_all_tasks_blocked()
            async with around(second):
                pass

    def start(group: TaskGroup) -> None:
        group.start_soon(enter, one, other, name="a")
        group.start_soon(enter, other, one, name="b")

    return Stuck(start, {"a", "b"}, {"a": (what, {"b"}), "b": (what, {"a"})})


def lock() -> Stuck:
    """AnyIO's."""
    return crossed(anyio.Lock(), anyio.Lock(), "Lock")


def capacity() -> Stuck:
    """AnyIO's."""
    return crossed(anyio.CapacityLimiter(1), anyio.CapacityLimiter(1), "slot of CapacityLimiter")


def semaphore() -> Stuck:
    """AnyIO's, which says how many it has only if it was told a limit."""
    one, other = (anyio.Semaphore(1, max_value=1) for _ in "ab")
    return crossed(one, other, "slot of Semaphore")


def semaphore_made_elsewhere() -> Stuck:
    """AnyIO's, made where no loop runs."""
    with ThreadPoolExecutor(1) as thread:
        one, other = (thread.submit(anyio.Semaphore, 1, max_value=1).result() for _ in "ab")
    return crossed(one, other, "slot of Semaphore")


def limiter() -> Stuck:
    """Ours."""
    one, other = (ConcurrencyLimiter(1, name="db") for _ in "ab")
    return crossed(one, other, "slot of ConcurrencyLimiter 'db'")


def resources() -> Stuck:
    """Ours."""
    one, other = (ResourceLimiter(concurrency=1) for _ in "ab")
    return crossed(one, other, "slot of ResourceLimiter")


def adaptive() -> Stuck:
    """Ours."""
    one, other = (
        AdaptiveLimiter(initial=1, max_limit=1, max_waiting=None, name="up") for _ in "ab"
    )
    return crossed(one, other, "slot of AdaptiveLimiter 'up'")


@asynccontextmanager
async def holding(block: Block) -> AsyncGenerator[None]:
    """Hold something in a generator."""
    async with block:
        yield


def managers() -> Stuck:
    """In a function that `contextlib` has made a block of."""
    one, other = (ConcurrencyLimiter(1) for _ in "ab")
    return crossed(one, other, "slot of ConcurrencyLimiter", lambda block: holding(holding(block)))


def stacks() -> Stuck:
    """Entered by exit stacks."""
    one, other = (ConcurrencyLimiter(1) for _ in "ab")

    async def enter(first: ConcurrencyLimiter, second: ConcurrencyLimiter) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(first)
            stack.callback(str)  # which holds nothing
            await anyio.wait_all_tasks_blocked()
            await stack.enter_async_context(second)

    async def give_back(first: ConcurrencyLimiter, second: ConcurrencyLimiter) -> None:
        async with AsyncExitStack() as stack:
            await first.acquire()
            stack.callback(first.release)
            await anyio.wait_all_tasks_blocked()
            await second.acquire()

    def start(group: TaskGroup) -> None:
        group.start_soon(enter, one, other, name="a")
        group.start_soon(give_back, other, one, name="b")

    what = "slot of ConcurrencyLimiter"
    return Stuck(start, {"a", "b"}, {"a": (what, {"b"}), "b": (what, {"a"})})


# ---- one that waits for itself ----


def itself(call: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any], what: str) -> Stuck:
    """Have a function called in a slot call itself in another, of which there is none."""

    async def again() -> None:
        await call(again)

    def start(group: TaskGroup) -> None:
        group.start_soon(again, name="a")

    return Stuck(start, {"a"}, {"a": (what, {"a"})})


def run() -> Stuck:
    """By `run`."""
    return itself(ConcurrencyLimiter(1, name="db").run, "slot of ConcurrencyLimiter 'db'")


def decorated() -> Stuck:
    """By a decorator."""
    limit = ConcurrencyLimiter(1, name="db")
    return itself(lambda fn: limit(fn)(), "slot of ConcurrencyLimiter 'db'")


def pipeline() -> Stuck:
    """By a part of a pipeline."""
    chain = Pipeline(ConcurrencyLimiter(1, name="db"))
    return itself(chain.run, "slot of ConcurrencyLimiter 'db'")


def adaptive_pipeline() -> Stuck:
    """By another."""
    chain = Pipeline(AdaptiveLimiter(initial=1, max_limit=1, max_waiting=None, name="up"))
    return itself(chain.run, "slot of AdaptiveLimiter 'up'")


# ---- one that waits for others, which wait for it ----


def children() -> Stuck:
    """A task leaves its task group, whose tasks wait for what it holds."""
    limit = ConcurrencyLimiter(2, name="db")

    async def child() -> None:
        async with limit:
            pass

    async def parent(name: str) -> None:
        async with limit, anyio.create_task_group() as group:
            await anyio.wait_all_tasks_blocked()
            group.start_soon(child, name=f"child of {name}")

    def start(group: TaskGroup) -> None:
        group.start_soon(parent, "a", name="a")
        group.start_soon(parent, "b", name="b")

    what = ("slot of ConcurrencyLimiter 'db'", {"a", "b"})
    return Stuck(
        start,
        {"a", "child of a"},
        {"a": ("tasks", {"child of a"}), "child of a": what, "child of b": what},
    )


def load() -> Stuck:
    """A task waits for a load, and holds what the load needs."""
    cache: TTLCache[int] = TTLCache(name="users")
    limit = ConcurrencyLimiter(1, name="db")

    async def fetch() -> int:
        async with limit:
            return 1

    async def get() -> None:
        await cache.get_or_set("ann", fetch)

    async def get_in_slot(group: TaskGroup) -> None:
        async with limit:
            group.start_soon(get, name="b")
            await anyio.wait_all_tasks_blocked()
            await get()

    def start(group: TaskGroup) -> None:
        group.start_soon(get_in_slot, group, name="a")

    return Stuck(
        start,
        {"a", "b"},
        {
            "a": ("load of TTLCache 'users'", {"b"}),
            "b": ("slot of ConcurrencyLimiter 'db'", {"a"}),
        },
    )


def executors() -> Stuck:
    """Items of two executors call each other's."""
    one, other = TaskExecutor(max_workers=1, name="one"), TaskExecutor(max_workers=1, name="other")

    async def nothing() -> None:
        pass

    async def call(executor: TaskExecutor) -> None:
        await anyio.wait_all_tasks_blocked()
        await executor.run(nothing)

    def start(group: TaskGroup) -> None:
        group.start_soon(one.run, call, other, name="a")
        group.start_soon(other.run, call, one, name="b")

    return Stuck(
        start,
        {"a", "b"},
        {
            "a": ("slot of TaskExecutor 'other'", {"b"}),
            "b": ("slot of TaskExecutor 'one'", {"a"}),
        },
    )


def handle() -> Stuck:
    """A task waits for a submitted one, and holds what that needs."""
    held = anyio.Lock()

    async def take() -> None:
        async with held:
            pass

    async def submit() -> None:
        async with TaskExecutor(name="pool") as executor, held:
            task = await executor.submit(take)
            await task

    def start(group: TaskGroup) -> None:
        group.start_soon(submit, name="a")

    take.__qualname__ = "b"
    return Stuck(start, {"a", "b"}, {"a": ("task 'b'", {"b"}), "b": ("Lock", {"a"})})


DEADLOCKS: dict[str, Callable[[], Stuck]] = {
    fn.__name__: fn
    for fn in (
        lock,
        capacity,
        semaphore,
        semaphore_made_elsewhere,
        limiter,
        resources,
        adaptive,
        managers,
        stacks,
        run,
        decorated,
        pipeline,
        adaptive_pipeline,
        children,
        load,
        executors,
        handle,
    )
}


async def check(stuck: Stuck) -> None:
    """Start the tasks, and see what the tree says when all are blocked."""
    async with anyio.create_task_group() as group:
        stuck.start(group)
        await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        found, from_outside = read(), read(complete=False)
        group.cancel_scope.cancel()
    for name, wait in stuck.waits.items():
        assert found.waits[name] == wait
    assert [set(cycle) for cycle in found.cycles] == [stuck.cycle]
    assert from_outside.cycles == found.cycles
