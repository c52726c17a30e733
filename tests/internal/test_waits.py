"""What tasks wait for, since when and who holds it, by their frames; and no more than is so."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import importlib
import inspect
import socket
import threading
from types import CodeType
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from mtaio._internal import loops, task_tree, waits
from mtaio._internal.frames import await_chain
from mtaio._internal.wait_rules import HOLDING, RULES
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    ResourceLimiter,
)
from mtaio.testing import run, settle
from tests.deadlocks import DEADLOCKS, Read, check, read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LETTERS = "abcdefghijkl"


@pytest.mark.parametrize("kind", DEADLOCKS)
async def test_deadlock_is_named(kind: str) -> None:
    """A deadlock of each kind is one cycle, of exactly those who are in it."""
    await check(DEADLOCKS[kind]())


async def reading(*fns: Callable[[], Awaitable[object]]) -> Read:
    """Return what is read when tasks, named by letters in their order, have all come to wait."""
    async with anyio.create_task_group() as group:
        for name, fn in zip(LETTERS, fns, strict=False):
            group.start_soon(called, fn, name=name)
            await settle()
        found = read()
        group.cancel_scope.cancel()
    return found


async def called(fn: Callable[[], Awaitable[object]]) -> None:
    """Await what a function returns."""
    await fn()


async def whats(*fns: Callable[[], Awaitable[object]]) -> list[str]:
    """Return what tasks wait for, in their order; "-" for those of which nothing is known."""
    found = (await reading(*fns)).waits
    return [found[name][0] if name in found else "-" for name in LETTERS[: len(fns)]]


async def test_of_ours() -> None:
    """Each of our objects is called by its name, with what it is waited for."""
    limit, rate = ConcurrencyLimiter(1, name="db"), RateLimiter(1, burst=1, name="api")
    await limit.acquire()
    await rate.acquire()
    keys = KeyedRateLimiter(1, burst=1, name="clients")
    await keys.acquire("ann")
    slots = KeyedConcurrencyLimiter(1, name="hosts")
    await slots.acquire("a.org")
    quota = Quota(requests=(1, 60), name="model")
    await quota.acquire()
    both = ResourceLimiter(rate=rate, name="both")
    emitter = EventEmitter(name="orders")
    executor = TaskExecutor(max_workers=1, name="pool")

    async def read_stream() -> None:
        async with executor.stream(anyio.sleep, [9]) as results:
            async for _ in results:
                pass

    async def read_events() -> None:
        async with emitter.stream("paid") as events:
            async for _ in events:
                pass

    async def in_time() -> None:
        await limit.acquire(timeout=9)

    assert await whats(
        limit.acquire,
        in_time,
        rate.acquire,
        functools.partial(keys.acquire, "ann"),
        functools.partial(slots.acquire, "a.org"),
        quota.acquire,
        functools.partial(both.run, anyio.sleep, 1),
        functools.partial(emitter.wait_for, "paid"),
        read_events,
        read_stream,
        functools.partial(executor.run, anyio.sleep, 1),
    ) == [
        "slot of ConcurrencyLimiter 'db'",
        "slot of ConcurrencyLimiter 'db'",
        "token of RateLimiter 'api'",
        "token of KeyedRateLimiter 'clients'",
        "slot of KeyedConcurrencyLimiter 'hosts'",
        "token of Quota 'model'",
        "token of ResourceLimiter 'both'",
        "event of EventEmitter",
        "item of EventStream",
        "item of Stream",
        "slot of TaskExecutor 'pool'",
    ]


async def test_of_anyio() -> None:
    """So is what AnyIO has, on both backends."""
    send, receive = anyio.create_memory_object_stream[int](0)
    full, other = anyio.create_memory_object_stream[int](0)
    condition = anyio.Condition()
    here, there = socket.socketpair()
    here.setblocking(False)  # noqa: FBT003 - the standard library's

    async def on_condition() -> None:
        async with condition:
            await condition.wait()

    async def of_tasks() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 9)

    async def until() -> None:
        await anyio.sleep_until(anyio.current_time() + 7)

    with here, there, send, receive, full, other:
        found = await whats(
            anyio.Event().wait,
            receive.receive,
            functools.partial(full.send, 1),
            on_condition,
            of_tasks,
            functools.partial(anyio.sleep, 5),
            until,
            anyio.sleep_forever,
            functools.partial(anyio.wait_readable, here),
        )
    assert found == [
        "Event",
        "item of memory object stream",
        "room of memory object stream",
        "Condition",
        "tasks",
        "sleep of 5 s, 5 s left",
        "sleep of 7 s, 7 s left",
        "sleep of no end",
        "socket",
    ]


async def test_worker_thread() -> None:
    """A task that waits for a thread waits for its function, or for a place."""
    done = threading.Event()

    def work() -> None:
        done.wait()

    limiter = anyio.CapacityLimiter(1)
    call = functools.partial(anyio.to_thread.run_sync, work, limiter=limiter)
    async with anyio.create_task_group() as group:
        group.start_soon(called, call, name="a")
        while not limiter.borrowed_tokens:
            await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        group.start_soon(called, call, name="b")
        group.start_soon(called, functools.partial(TaskExecutor().run, work), name="c")
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        found = read()
        done.set()
    assert found.waits["a"][0].startswith("thread of ")
    assert found.waits["b"][0] == "slot of CapacityLimiter"
    assert found.waits["c"][0] == "thread of test_worker_thread.<locals>.work"


async def test_seconds() -> None:
    """Waits for what notes its time are as long as they are; the longest come first."""
    limit = ConcurrencyLimiter(1)
    await limit.acquire()
    rate = RateLimiter(1, burst=1)
    await rate.acquire()
    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(called, limit.acquire, name=name)
            await anyio.sleep(0.25)
        group.start_soon(called, rate.acquire, name="rate")
        group.start_soon(called, anyio.Event().wait, name="event")
        group.start_soon(anyio.sleep, 9, name="sleep")
        await anyio.sleep(0.125)
        found = read()
        group.cancel_scope.cancel()
    assert {name: found.seconds.get(name) for name in ("a", "b", "c", "rate", "event")} == {
        "a": 0.875,
        "b": 0.625,
        "c": 0.375,
        "rate": 0.125,
        "event": None,
    }
    assert found.seconds["sleep"] == pytest.approx(0.125)
    assert found.longest == ["a", "b", "c", "rate"]


async def test_time_since_the_first_look() -> None:
    """Where nothing tells since when a task waits, the first look does, until the task goes on."""
    lock, events = anyio.Lock(), [anyio.Event() for _ in range(2)]

    async def hold() -> None:
        async with lock:
            for event in events:
                await event.wait()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(hold, name="hold")
        await settle()
        group.start_soon(called, lock.acquire, name="waits")
        await settle()
        seconds = []
        for at in range(3):
            found = read()
            seconds.append((found.seconds["hold"], found.seconds["waits"]))
            await anyio.sleep(0.5)
            if at == 1:
                events[0].set()
                await settle()
        again = read()
        group.cancel_scope.cancel()
    assert seconds == [(None, None), (0.5, 0.5), (None, 1.0)]
    assert again.seconds["hold"] == 0.5
    # Most of what waits for events idles; what others hold is of interest.
    assert again.longest == ["waits"]


# ---- who holds it ----


async def test_holders_of_many_slots() -> None:
    """All who hold a slot are named, once each, and those who wait are not."""
    limit = ConcurrencyLimiter(3, name="db")
    both = ResourceLimiter(concurrency=limit)

    class Block:
        """One of the program's own, which leads to nothing."""

        async def __aenter__(self) -> None:
            pass

        @classmethod
        async def __aexit__(cls, *_: object) -> None:
            pass

    async def hold() -> None:
        async with Block(), limit:
            await anyio.sleep(9)

    async def hold_two() -> None:
        async with limit, both:
            await anyio.sleep(9)

    found = await reading(hold, hold_two, hold)
    assert found.waits["c"] == ("slot of ConcurrencyLimiter 'db'", {"a", "b"})
    assert found.cycles == []


async def test_wait_for_one_of_several_slots_is_no_deadlock() -> None:
    """While one of those who hold slots goes on, nothing is a cycle."""
    limit = ConcurrencyLimiter(2, name="db")

    async def nested() -> None:
        async with limit, anyio.create_task_group() as group:
            await anyio.lowlevel.checkpoint()
            group.start_soon(limit.acquire, name="child")

    async def hold() -> None:
        async with limit:
            await anyio.sleep(9)

    found = await reading(hold, nested)
    assert found.waits["child"] == ("slot of ConcurrencyLimiter 'db'", {"a", "b"})
    assert found.cycles == []


async def test_slot_that_leaves_no_trace_is_no_deadlock() -> None:
    """Where not all holders are found, somebody else may give a slot back."""
    limit = ConcurrencyLimiter(2, name="db")
    await limit.acquire()  # and nobody knows for whom
    half = anyio.Semaphore(1)  # which does not know how many it has

    async def nested(block: Any) -> None:
        async with block, block:
            pass

    found = await reading(functools.partial(nested, limit), functools.partial(nested, half))
    assert found.waits["a"] == ("slot of ConcurrencyLimiter 'db'", {"a"})
    assert found.waits["b"] == ("slot of Semaphore", {"b"})
    assert found.cycles == []


async def test_condition_that_waits_does_not_hold_its_lock() -> None:
    """Who waits for a condition has let go of its lock, and is not taken for a holder."""
    semaphores = [anyio.Semaphore(1, max_value=1)]

    class Condition:
        """A lock that is let go of while one waits."""

        def __init__(self) -> None:
            self._lock = semaphores[0]

        async def __aenter__(self) -> None:
            await self._lock.acquire()

        async def __aexit__(self, *_: object) -> None:
            pass

        async def wait(self) -> None:
            self._lock.release()
            await anyio.sleep_forever()

    Condition.__module__ = "asyncio.locks"

    async def on_condition() -> None:
        condition = Condition()
        async with condition:
            await condition.wait()

    async def hold() -> None:
        async with semaphores[0]:
            await anyio.sleep(9)

    found = await reading(on_condition, hold, semaphores[0].acquire)
    assert found.waits["c"] == ("slot of Semaphore", {"b"})


async def test_slot_that_is_lent() -> None:
    """An item that lends its slot to a call of its own holds it all the same, and once."""
    executor = TaskExecutor(max_workers=1, name="pool")

    async def outer(number: int) -> None:
        await executor.map(anyio.sleep, [number])

    found = await reading(
        functools.partial(executor.map, outer, [9]), functools.partial(executor.run, anyio.sleep, 9)
    )
    what, holders = found.waits["b"]
    assert what == "slot of TaskExecutor 'pool'"
    assert len(holders) == 1
    assert found.cycles == []


async def test_keys_of_any_kind() -> None:
    """No code of the program is run to show a key."""
    keys = KeyedRateLimiter(1, burst=1)

    class Key:
        def __repr__(self) -> str:
            raise AssertionError

    key = (Key(), 1.5)
    await keys.acquire(key)
    waiting = keys.acquire(key)
    waiting.send(None)
    found = waits.waits_of({1: await_chain(waiting)}, None, keys=True)
    assert found[1].wait.what == "token of KeyedRateLimiter key=(<Key>, 1.5)"
    waiting.close()
    # They may be secret, so the tree of a running service has none.
    assert await whats(functools.partial(keys.acquire, key)) == ["token of KeyedRateLimiter"]


async def test_load_of_several_keys() -> None:
    """Who waits for one of several keys waits for the task that loads them all."""
    cache: TTLCache[int] = TTLCache(name="users")

    async def fetch(keys: list[str]) -> dict[str, int]:
        await anyio.sleep(9)
        return dict.fromkeys(keys, 1)

    async def get(*keys: str) -> None:
        await cache.get_or_set_many([*keys], fetch)

    found = await reading(functools.partial(get, "ann", "bob"), functools.partial(get, "bob"))
    assert found.waits["b"] == ("load of TTLCache 'users'", {"a"})


async def test_places_of_submitted_tasks() -> None:
    """To submit, a task waits for those that have the places; so it does to leave the block."""
    executor = TaskExecutor(max_workers=1, max_pending=1, name="pool")

    async def work() -> None:
        await anyio.sleep(9)

    async def submit() -> None:
        async with executor:
            for _ in range(2):
                await executor.submit(work)
            async with anyio.create_task_group() as group:
                group.start_soon(executor.submit, work, name="b")
                await anyio.lowlevel.checkpoint()
                await anyio.sleep_forever()

    async def leave() -> None:
        async with TaskExecutor(name="other") as other:
            work.__qualname__ = "c"
            await other.submit(work)

    work.__qualname__ = "w"
    async with anyio.create_task_group() as group:
        group.start_soon(submit, name="a")
        await settle()
        group.start_soon(leave, name="d")
        await settle()
        tree = task_tree.read(loops.current_loop())
        group.cancel_scope.cancel()
    nodes = [node for _, node in tree.walk() if isinstance(node, task_tree.TaskNode)]
    names = {node.id: node.name for node in nodes}
    told = {
        node.name: (node.wait.what, sorted(names[each] for each in node.wait.holders))
        for node in nodes
        if node.wait is not None and node.name in "bd"
    }
    assert told == {
        "b": ("place of TaskExecutor 'pool'", ["w", "w"]),
        "d": ("tasks of TaskExecutor 'other'", ["c"]),
    }


def test_cycle_of_tasks_that_have_gone_on_is_none() -> None:
    """Read while the loop runs, a cycle counts only if all of its tasks wait as they did."""
    wait = waits.Wait(on="lock", holders=(1,))
    found = {1: waits.Found(wait, every=False, sure=True)}
    assert waits.cycles(found) == ((1,),)
    assert waits.cycles(found, still=lambda task: task != 1) == ()


# ---- asyncio's and trio's own ----


def on_asyncio(*fns: Callable[[], Awaitable[object]]) -> Read:
    """Read what tasks of asyncio's, named by letters, wait for."""
    found: list[Read] = []

    async def main() -> None:
        tasks = [
            asyncio.create_task(called(fn), name=name)
            for name, fn in zip(LETTERS, fns, strict=False)
        ]
        await settle()
        found.append(read())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main, backend="asyncio")
    return found[0]


def test_of_asyncio() -> None:
    """What asyncio has is named, with its holders."""
    lock, semaphore = asyncio.Lock(), asyncio.BoundedSemaphore(1)
    condition, queue = asyncio.Condition(), asyncio.Queue[int](1)

    async def hold() -> None:
        async with lock, semaphore:
            await asyncio.sleep(9)

    async def wait() -> None:
        async with condition:
            await condition.wait()

    async def fill() -> None:
        await queue.put(1)
        await queue.put(1)

    async def group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(9), name="child")

    async def future() -> None:
        await asyncio.get_running_loop().create_future()

    found = on_asyncio(
        hold,
        lock.acquire,
        semaphore.acquire,
        wait,
        asyncio.Event().wait,
        fill,
        asyncio.Queue[int]().get,
        queue.join,
        group,
        future,
        lambda: asyncio.Barrier(2).wait(),
        lambda: asyncio.wrap_future(concurrent.futures.Future[None]()),
    ).waits
    assert [found[name] for name in LETTERS[:12]] == [
        ("sleep of 9 s, 9 s left", set()),
        ("Lock", {"a"}),
        ("slot of BoundedSemaphore", {"a"}),
        ("Condition", set()),
        ("Event", set()),
        ("room of Queue", set()),
        ("item of Queue", set()),
        ("items of Queue", set()),
        ("tasks", {"child"}),
        ("future", set()),
        ("Barrier", set()),
        ("thread", set()),
    ]


def test_asyncio_tasks_that_wait_for_tasks() -> None:
    """A task that awaits another waits for that one, however it does."""
    stop: list[asyncio.Future[None]] = []

    async def sleep() -> None:
        stop.append(asyncio.get_running_loop().create_future())
        await stop[0]

    def other(name: str) -> asyncio.Task[Any]:
        return next(task for task in asyncio.all_tasks() if task.get_name() == name)

    async def bare() -> None:
        await other("a")

    async def shielded() -> None:
        await asyncio.shield(other("a"))

    async def gathered() -> None:
        await asyncio.gather(other("a"), other("b"))

    async def waited() -> None:
        await asyncio.wait([other("a"), other("b")])

    async def first() -> None:
        await asyncio.wait([other("a"), other("b")], return_when=asyncio.FIRST_COMPLETED)

    async def in_time() -> None:
        await asyncio.wait_for(other("a"), 9)

    async def in_any_time() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), None)

    found = on_asyncio(sleep, bare, shielded, gathered, waited, first, in_time, in_any_time).waits
    assert [found[name] for name in "bcdefgh"] == [
        ("task 'a'", {"a"}),
        ("task 'a'", {"a"}),
        ("tasks", {"a", "b"}),
        ("tasks", {"a", "b"}),
        ("tasks", {"a", "b"}),
        ("task 'a'", {"a"}),
        ("Event", set()),
    ]


def test_asyncio_tasks_that_wait_for_each_other() -> None:
    """They are a cycle; not so if one of them waits for the first of several."""
    tasks: dict[str, asyncio.Task[Any]] = {}

    def awaiting(*names: str, when: str = asyncio.ALL_COMPLETED) -> Callable[[], Awaitable[object]]:
        async def wait() -> None:
            for task in asyncio.all_tasks():
                tasks[task.get_name()] = task
            await asyncio.wait([tasks[name] for name in names], return_when=when)

        return wait

    sleep = functools.partial(asyncio.sleep, 9)
    for one in (awaiting("b"), awaiting("b", "c")):
        (cycle,) = on_asyncio(one, awaiting("a"), sleep).cycles
        assert sorted(cycle) == ["a", "b"]
    first = awaiting("b", "c", when=asyncio.FIRST_COMPLETED)
    assert on_asyncio(first, awaiting("a"), sleep).cycles == []


def test_of_trio() -> None:
    """What trio has is named, with its holders."""
    trio = pytest.importorskip("trio")
    found: list[Read] = []

    async def hold(block: Any) -> None:
        async with block:
            await trio.sleep(9)

    async def main() -> None:
        blocks = [trio.Lock(), trio.StrictFIFOLock(), trio.CapacityLimiter(1)]
        blocks.append(trio.Semaphore(1, max_value=1))
        full, empty = trio.open_memory_channel(0)
        condition = trio.Condition()
        async with trio.open_nursery() as nursery:
            for name, block in zip("abcd", blocks, strict=True):
                nursery.start_soon(hold, block, name=name)
            await settle()
            for name, fn in zip(
                "efghijklm",
                (
                    *(block.acquire for block in blocks),
                    trio.Event().wait,
                    functools.partial(full.send, 1),
                    trio.open_memory_channel(0)[1].receive,
                    trio.sleep_forever,
                    functools.partial(hold, blocks[0]),
                ),
                strict=True,
            ):
                nursery.start_soon(called, fn, name=name)
            nursery.start_soon(trio.lowlevel.wait_task_rescheduled, abort, name="n")
            await condition.acquire()
            condition.release()
            await settle()
            found.append(read())
            nursery.cancel_scope.cancel()
        del empty

    def abort(_: object) -> object:
        return trio.lowlevel.Abort.SUCCEEDED

    run(main, backend="trio")
    assert [found[0].waits[name] for name in "aefghijklmn"] == [
        ("sleep of 9 s, 9 s left", set()),
        ("Lock", {"a"}),
        ("lock of StrictFIFOLock", {"b"}),
        ("slot of CapacityLimiter", {"c"}),
        ("slot of Semaphore", {"d"}),
        ("Event", set()),
        ("room of memory channel", set()),
        ("item of memory channel", set()),
        ("sleep", set()),
        ("Lock", {"a"}),
        ("wake-up", set()),
    ]


# ---- the rules ----


def codes_in(module: str, name: str) -> Iterator[CodeType]:
    """Yield the code of each function of a module that has a qualified name."""
    todo = [compile(inspect.getsource(importlib.import_module(module)), module, "exec")]
    while todo:
        code = todo.pop()
        if code.co_qualname == name:
            yield code
        todo += [each for each in code.co_consts if isinstance(each, CodeType)]


def test_rules_are_for_functions_that_there_are() -> None:
    """A function of ours that is renamed, or a variable of it, takes its rule along."""
    wanted = {
        (module, name): rule.variables
        for module, rules in RULES.items()
        if module.startswith("mtaio.")
        for name, rule in rules.items()
    } | {
        (module, name): {held} for module, names in HOLDING.items() for name, held in names.items()
    }
    for (module, name), variables in wanted.items():
        assert any(
            variables <= {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
            for code in codes_in(module, name)
        ), name


async def test_what_raises_is_left_out() -> None:
    """A chain that does not fit together costs that task its wait, and nobody else."""
    limit = KeyedConcurrencyLimiter(1)
    await limit.acquire("a")
    waiting = limit.acquire("a")
    waiting.send(None)
    chain = await_chain(waiting)
    torn = chain._replace(frames=[cast("Any", None)])
    odd = chain._replace(frames=["compiled"], codes=["compiled"], end=None)
    cut = chain._replace(frames=chain.frames[:1], codes=chain.codes[:1], end=None)
    found = waits.waits_of({1: torn, 2: chain, 3: odd, 4: cut}, None)
    assert {task: each.wait.on for task, each in found.items()} == {2: "slot"}
    waiting.close()
