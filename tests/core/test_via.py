"""Calls of the executor with ``via=``: in pools made elsewhere, one by one and in chunks."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import sys
import threading
import weakref
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import ExternalPool, Retry, TaskExecutor
from mtaio.core._errors import shorten
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.testing import run, settle
from tests.backends import BACKENDS
from tests.core.manual_pool import ManualPool
from tests.core.work import add, end_process, fail, leave
from tests.injection import at_every_checkpoint, cancelled_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

LINGER = 0.002
"""Seconds for which the first call of a chunk waits for others."""


def double(x: int) -> int:
    """Double a number."""
    return 2 * x


def odd_only(x: int) -> int:
    """Refuse even numbers."""
    if x % 2 == 0:
        raise LookupError(x)
    return x


def settled(x: object) -> object:
    """Raise an error, and return anything else."""
    if isinstance(x, BaseException):
        raise x
    return x


def size(sent: Any) -> int:
    """Return how many calls were sent as this one."""
    return len(sent.args[1])


# ---- one by one ----------------------------------------------------------------------------------


async def test_calls_go_to_the_pool_as_they_are_and_results_come_in_order() -> None:
    """The pool gets the user's function itself, and the order of ending does not matter."""
    pool = ManualPool()
    results: list[int] = []

    async def call() -> None:
        results.extend(await TaskExecutor().map(double, [1, 2, 3], via=pool))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await settle()
        assert [(sent.fn, sent.args) for sent in pool.sent] == [(double, (n,)) for n in (1, 2, 3)]
        for sent in reversed(pool.sent):
            sent.end()
    assert results == [2, 4, 6]


async def test_pool_never_has_more_than_the_limit() -> None:
    """As many calls as the limit says are with the pool, and the next when one has ended."""
    pool = ManualPool()
    executor = TaskExecutor()

    async with anyio.create_task_group() as group:
        group.start_soon(partial(executor.map, double, range(6), via=pool, limit=2))
        for sent_so_far in range(2, 7):
            await settle()
            assert len(pool.sent) == sent_so_far
            pool.sent[sent_so_far - 2].end()
        await settle()
        pool.end_all()
    assert executor.statistics().peak == 2


async def test_rate_retry_and_progress_are_those_of_any_item() -> None:
    """Attempts start as the rate allows, and an item counts when its last one has ended."""
    pool = ManualPool()
    executor = TaskExecutor()
    attempts: list[float] = []
    done: list[tuple[int, int | None]] = []
    broken = 2

    def flaky(x: int) -> int:
        nonlocal broken
        attempts.append(anyio.current_time())
        if x == 1 and broken:
            broken -= 1
            raise ConnectionError
        return x

    async def work() -> None:
        while True:
            await settle()
            pool.end_all()
            await anyio.sleep(0.125)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        results = await executor.map(
            flaky,
            [0, 1],
            via=pool,
            rate=1,
            retry=Retry(attempts=3, wait_initial=0),
            on_progress=lambda *counts: done.append(counts),
        )
        group.cancel_scope.cancel()
    assert results == [0, 1]
    assert attempts == [0, 1, 2, 3]
    assert done == [(1, 2), (2, 2)]
    assert executor.statistics().retried == 2


@pytest.mark.parametrize("limited", [False, True])
async def test_cancelled_call_that_has_not_begun_is_never_made(*, limited: bool) -> None:
    """Its future is cancelled; one that has begun goes on by itself, and is not waited for."""
    pool = ManualPool()
    via = ExternalPool(pool, limit=2) if limited else pool
    async with anyio.create_task_group() as group:
        group.start_soon(partial(TaskExecutor().map, double, [1, 2], via=via))
        await settle()
        pool.sent[0].begin()
        group.cancel_scope.cancel()
    assert [sent.future.cancelled() for sent in pool.sent] == [False, True]
    pool.sent[0].end()


@pytest.mark.parametrize("chunksize", [1, 2])
async def test_limit_holds_in_a_pool_that_does_not_tell_what_runs(chunksize: int) -> None:
    """As dask: it would cancel a call that runs. So none is cancelled, and each keeps its place."""
    pool = ManualPool()
    limited = ExternalPool(pool, limit=2)
    executor = TaskExecutor()
    call = partial(executor.map, double, [1, 2], via=limited, chunksize=chunksize)
    for _ in range(2):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await settle()
            group.cancel_scope.cancel()
        assert not any(sent.future.cancelled() for sent in pool.sent)
        assert limited.statistics().in_use == 2
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await settle()
        assert len(pool.sent) == 2 // chunksize
        for sent in pool.sent:
            sent.future.set_result(sent.fn(*sent.args))
        await settle()
        pool.end_all()
    assert limited.statistics().in_use == 0


async def test_place_under_the_pools_limit_is_kept_until_the_call_has_ended() -> None:
    """What was given up on still counts, also for another executor."""
    pool = ManualPool()
    limited = ExternalPool(pool, limit=1)
    results: list[int] = []

    async def second() -> None:
        results.append(await TaskExecutor().run(double, 2, via=limited))

    async with anyio.create_task_group() as group:
        group.start_soon(partial(TaskExecutor().run, double, 1, via=limited))
        await settle()
        pool.sent[0].begin()
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(second)
        await settle()
        assert len(pool.sent) == 1
        now = limited.statistics()
        assert (now.limit, now.in_use, now.waiting) == (1, 1, 1)
        thread = threading.Thread(target=pool.sent[0].end)
        thread.start()
        thread.join()
        while len(pool.sent) == 1:
            await anyio.lowlevel.checkpoint()
        pool.sent[1].end()
    assert results == [4]
    assert limited.statistics().in_use == 0


@pytest.mark.parametrize("chunksize", [1, 2])
async def test_cancellation_anywhere_leaves_nothing_behind(chunksize: int) -> None:
    """Whatever has not begun is cancelled, and every place comes back."""

    class Pool(ManualPool):
        """It begins the first call at once."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            if len(self.sent) == 1:
                self.sent[0].begin()
            return future

    pools: list[ManualPool] = []

    async def scenario(at: int) -> bool:
        pool = Pool()
        pools.append(pool)
        limited = ExternalPool(pool, limit=4)
        executor = TaskExecutor(4)

        async def call() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(
                    partial(executor.map, double, range(5), via=limited, chunksize=chunksize)
                )
                for _ in range(8):
                    await settle()
                    if all(sent.future.done() for sent in pool.sent):
                        await anyio.sleep(LINGER)  # nothing is with the pool: time passes
                        await settle()
                    await checkpoint()
                    pool.end_all()

        hit = await cancelled_at(call(), at)
        pool.end_all()
        await settle()
        assert limited.statistics().in_use == 0
        assert executor.statistics().in_flight == 0
        return hit

    with anyio.fail_after(60):
        assert await at_every_checkpoint(scenario) >= 3
    assert any(sent.future.cancelled() for pool in pools for sent in pool.sent)


async def test_pool_that_refuses_fails_its_items() -> None:
    """A pool that was shut down, or is broken, says so in each item; the call goes on."""
    pool = ManualPool()
    pool.refusal = RuntimeError("cannot schedule new futures after shutdown")
    results = await TaskExecutor().map(double, [1, 2], via=pool, errors="return")
    assert [str(result) for result in results] == [str(pool.refusal)] * 2


async def test_future_cancelled_by_others_is_an_error_not_a_cancellation() -> None:
    """As when a pool is shut down with cancel_futures=True."""
    pool = ManualPool()
    errors: list[RuntimeError] = []

    async def call() -> None:
        with pytest.raises(
            RuntimeError, match=r"^the pool dropped the call: it was cancelled by"
        ) as e:
            await TaskExecutor().run(double, 1, via=pool)
        errors.append(e.value)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await settle()
        assert pool.sent[0].future.cancel()
    assert errors


async def test_what_would_end_the_program_is_an_error_of_the_call() -> None:
    """SystemExit in a worker does not end the program that waits for it."""
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(
            RuntimeError, match=r"^the call raised SystemExit\(3\) in its worker"
        ) as caught,
    ):
        await TaskExecutor().run(leave, SystemExit(3), via=pool)
    assert isinstance(caught.value.__cause__, SystemExit)


@pytest.mark.parametrize(
    "text",
    [
        "Could not serialize object of type lock",
        "A result has failed to un-serialize. Please ensure that the objects are picklable.",
    ],
)
async def test_error_about_what_cannot_be_pickled_says_what_a_pool_takes(text: str) -> None:
    """Also as dask and loky put it."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError) as caught:
        await TaskExecutor().run(leave, TypeError(text), via=pool)
    assert caught.value.__notes__[0].startswith("A pool gets functions, arguments and results pick")


async def test_error_that_cannot_be_printed_is_raised_like_any_other() -> None:
    """As errors that lost an attribute when they were pickled."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise AttributeError

    with ThreadPoolExecutor(1) as pool, pytest.raises(UnprintableError) as caught:
        await TaskExecutor().map(leave, [UnprintableError()], via=pool)
    assert len(caught.value.__notes__) == 1


async def test_broken_pool_gives_each_call_an_error_of_its_own() -> None:
    """Pools that break set one and the same error on all that they had."""
    pool = ManualPool()
    broken = BrokenProcessPool("a process ended")
    results: list[Any] = []

    async def call() -> None:
        results.extend(await TaskExecutor().map(double, [1, 2], via=pool, errors="return"))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await settle()
        for sent in pool.sent:
            sent.future.set_exception(broken)
    assert [type(result) for result in results] == [BrokenProcessPool] * 2
    assert [result.__notes__ for result in results] == [
        ["in item 0: double(1)"],
        ["in item 1: double(2)"],
    ]


@pytest.mark.parametrize("chunksize", [1, 2])
async def test_results_and_errors_are_let_go_without_the_garbage_collector(chunksize: int) -> None:
    """Neither the pool's future nor an error's traceback holds them."""
    made: list[weakref.ref[Any]] = []

    class Thing(Exception):  # noqa: N818 - a result as well
        pass

    def make(_: object) -> Thing:
        made.append(weakref.ref(thing := Thing()))
        return thing

    class Pool(ManualPool):
        """Its futures are done when it returns them."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: Future[Any] = Future()
            if made:
                future.set_exception(make(0))
            else:
                future.set_result(fn(*args, **kwargs))
            return future

    async def call() -> None:
        executor = TaskExecutor()
        await executor.for_each(make, [1], via=Pool(), chunksize=chunksize)
        with pytest.raises(Thing):
            await executor.for_each(make, [2], via=Pool(), chunksize=chunksize)

    gc.disable()
    try:
        await call()
        assert [thing() for thing in made] == [None] * 2
    finally:
        gc.enable()


async def test_pool_whose_submit_returns_no_future_fails_its_calls() -> None:
    """It is not one of concurrent.futures."""

    class Pool(ManualPool):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            super().submit(fn, *args, **kwargs)

    limited = ExternalPool(Pool(), limit=1)
    with pytest.raises(AttributeError, match=r"'NoneType' object has no attribute 'add_done"):
        await TaskExecutor().run(double, 1, via=limited)
    assert limited.statistics().in_use == 0


def test_one_pool_serves_one_loop_after_another() -> None:
    """Made at module level, on either backend."""
    with ThreadPoolExecutor(1) as threads:
        pool = ExternalPool(threads, limit=1)
        for backend in BACKENDS:
            assert run(TaskExecutor().map, double, [1, 2], backend=backend) == [2, 4]

            async def through_pool() -> list[int]:
                return await TaskExecutor().map(double, [1, 2], via=pool)

            assert run(through_pool, backend=backend) == [2, 4]


async def test_stream_and_for_each_and_keywords() -> None:
    """All calls that take a plain function take a pool."""
    seen: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        executor = TaskExecutor()
        async with executor.stream(double, [1, 2], via=pool, ordered=True) as results:
            assert [result async for result in results] == [2, 4]
        await executor.for_each(seen.append, [1, 2], via=pool)
        assert await executor.run(int, "11", 2, via=pool) == 3
    assert seen == [1, 2]


# ---- in chunks -----------------------------------------------------------------------------------


async def test_full_chunks_are_sent_at_once_and_the_rest_after_a_moment() -> None:
    """Each item still has a result, or an error with a note, of its own."""
    pool = ManualPool()
    results: list[Any] = []

    async def call() -> None:
        results.extend(
            await TaskExecutor().map(odd_only, range(5), via=pool, chunksize=2, errors="return")
        )

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await settle()
        assert [size(sent) for sent in pool.sent] == [2, 2]
        pool.end_all()
        await anyio.sleep(LINGER)
        await settle()
        assert [size(sent) for sent in pool.sent] == [2, 2, 1]
        pool.end_all()
    assert [repr(result) for result in results] == [
        "LookupError(0)",
        "1",
        "LookupError(2)",
        "3",
        "LookupError(4)",
    ]
    assert results[2].__notes__ == ["in item 2: odd_only(2)"]


async def test_item_that_left_before_its_chunk_was_sent_is_not_sent() -> None:
    """The first of a chunk is out of time before that; the second, which relies on it, goes on."""
    pool = ManualPool()
    calls = ExternalPool(pool)
    results: list[Any] = []

    async def call() -> None:
        results.extend(
            await TaskExecutor().map(
                double, [1, 2], via=calls, chunksize=4, rate=1000, timeout=0.0015, errors="return"
            )
        )

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(0.001)
        await settle()
        assert not pool.sent
        await anyio.sleep(0.0005)
        await settle()
        assert [list(sent.args[1].values()) for sent in pool.sent] == [[((2,), {})]]
        pool.end_all()
    assert isinstance(results[0], MTAIOTimeoutError)
    assert results[1] == 4
    assert calls.statistics().in_use == 0


async def test_call_that_is_cancelled_before_its_chunk_was_sent_sends_nothing() -> None:
    """All items have left: there is nothing to send."""
    pool = ManualPool()
    with anyio.move_on_after(LINGER / 2):
        await TaskExecutor().map(double, [1, 2], via=pool, chunksize=4)
    assert not pool.sent


async def test_chunk_that_nobody_waits_for_is_cancelled() -> None:
    """It has been sent, and the pool has not begun it."""
    pool = ManualPool()
    async with anyio.create_task_group() as group:
        group.start_soon(partial(TaskExecutor().map, double, [1, 2], via=pool, chunksize=2))
        await settle()
        assert [size(sent) for sent in pool.sent] == [2]
        group.cancel_scope.cancel()
    assert pool.sent[0].future.cancelled()


def _with(state: dict[str, Any]) -> Exception:
    error = ConnectionError("gone")
    error.__dict__ = state
    return error


class SharingError(Exception):
    """Its copies share its attributes, as those of all errors once dask is imported."""

    def __reduce__(self) -> Any:
        """Return how a copy is made."""
        return _with, (vars(self),)


class UncopiableError(Exception):
    """Cannot be copied, nor shown."""

    def __repr__(self) -> str:
        """Refuse it."""
        raise AttributeError

    def __reduce__(self) -> Any:
        """Refuse it."""
        raise TypeError


@pytest.mark.parametrize(
    ("kind", "what", "text"),
    [
        (ConnectionError, "gone", "ConnectionError('gone')"),
        (SharingError, "gone", "ConnectionError('gone')"),
        (TypeError, "cannot pickle it", "TypeError('cannot pickle it')"),
        (
            UncopiableError,
            "gone",
            "RuntimeError('the chunk of this call failed: <UncopiableError ",
        ),
        (
            KeyboardInterrupt,
            "now",
            """RuntimeError("the call raised KeyboardInterrupt('now') in its worker")""",
        ),
    ],
)
async def test_chunk_that_fails_as_a_whole_fails_each_of_its_items(
    kind: type[BaseException], what: str, text: str
) -> None:
    """Each raises an error of its own, with its own note; of the same class if that can be."""
    pool = ManualPool()
    results: list[Any] = []
    error = kind(what)

    async def call() -> None:
        results.extend(
            await TaskExecutor().map(settled, [error, 2], via=pool, chunksize=2, errors="return")
        )

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await settle()
        if isinstance(error, Exception):
            pool.sent[0].future.set_exception(error)
        else:
            pool.end_all()
    assert [repr(result)[: len(text)] for result in results] == [text] * 2
    notes = [[note for note in each.__notes__ if "from the top" not in note] for each in results]
    assert notes == [[f"in item 0: settled({shorten(error)})"], ["in item 1: settled(2)"]]


async def test_call_of_a_chunk_that_fails_in_whatever_way_fails_alone() -> None:
    """SystemExit too; and an error that was pickled says where in the worker it arose."""
    pool = ManualPool()
    results: list[Any] = []

    async def call() -> None:
        items = [SystemExit(3), LookupError("no"), None]
        results.extend(
            await TaskExecutor().map(settled, items, via=pool, chunksize=3, errors="return")
        )

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await settle()
        sent = pool.sent[0]
        sent.future.set_result(pickle.loads(pickle.dumps(sent.fn(*sent.args))))  # noqa: S301 - ours
    assert [repr(result) for result in results] == [
        "RuntimeError('the call raised SystemExit(3) in its worker')",
        "LookupError('no')",
        "None",
    ]
    assert all("in settled" in str(result.__cause__) for result in results[:2])


async def test_retry_sends_what_failed_again() -> None:
    """In a later chunk, with whatever else is there."""
    tried: list[int] = []

    def flaky(x: int) -> int:
        tried.append(x)
        if tried.count(x) <= x % 2:
            raise ConnectionError
        return x

    with ThreadPoolExecutor(1) as pool:
        policy = Retry(attempts=2, wait_initial=0)
        executor = TaskExecutor()
        assert await executor.map(flaky, range(4), via=pool, chunksize=2, retry=policy) == [
            0,
            1,
            2,
            3,
        ]
    assert sorted(tried) == [0, 1, 1, 2, 3, 3]


# ---- real processes ------------------------------------------------------------------------------


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    """
    Return a pool of two processes, started as on every platform.

    A pool that breaks may leave a buffer of its own in a cycle, in Python 3.13: collecting it is a
    BufferError that nobody can catch, and that would be seen in whatever test runs then.
    """
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, BufferError):
            report(unraisable)

    sys.unraisablehook = report_others
    try:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
        gc.collect()
    finally:
        sys.unraisablehook = report


def test_process_pool(backend: str, processes: ProcessPoolExecutor) -> None:
    """Order, errors, chunks, what cannot be pickled, and at last a worker that dies."""

    async def main() -> None:
        executor = TaskExecutor()
        pairs = await executor.map(add, range(20), range(20), via=processes, limit=8, chunksize=4)
        assert [total for total, _ in pairs] == [2 * n for n in range(20)]
        assert os.getpid() not in {process for _, process in pairs}
        with pytest.raises(LookupError, match=r"^no\b") as caught:
            await executor.map(fail, ["no"], via=processes)
        assert caught.value.__notes__ == ["in item 0: fail('no')"]
        with pytest.raises(Exception, match=r"pickle|local object") as unpicklable:
            await executor.map(lambda x: x, [1], via=processes)
        assert any("from the top level of a module" in text for text in unpicklable.value.__notes__)
        # The standard library's pool is broken by it for good: all that it had and gets fails.
        results = await executor.map(end_process, [None, None], via=processes, errors="return")
        assert [type(result) for result in results] == [BrokenProcessPool] * 2

    run(main, backend=backend, grace=30)  # a process may take its time to start


async def test_own_processes() -> None:
    """The executor's worker processes take calls, within its limit on processes."""
    executor = TaskExecutor(processes=1)
    pairs = await executor.map(add, [1, 2], [3, 4], via="processes")
    assert [total for total, _ in pairs] == [4, 6]
    assert len({process for _, process in pairs} - {os.getpid()}) == 1
    assert await executor.run(add, 1, 2, via="processes") == (3, pairs[0][1])


# ---- refusals ------------------------------------------------------------------------------------


async def nothing() -> None:
    """Do nothing."""


class Client:
    """Looks like dask's."""

    def submit(self) -> None:
        """Take a call in dask's way."""

    def get_executor(self) -> None:
        """Return what would have been right."""

    def __repr__(self) -> str:
        return "<Client>"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"via": "threads"}, ValueError, r"^via='threads' is unknown\. Pass a concurrent\.futures"),
        ({"via": 3}, TypeError, r"^via=3 is an int and has no submit\(\) that ret"),
        ({"via": ThreadPoolExecutor}, TypeError, r"^via=<class .*> is a type and has no sub"),
        ({"via": TaskExecutor()}, TypeError, r"^via=<TaskEx.* has no submit\(\) that returns a F"),
        (
            {"via": Client()},
            TypeError,
            r"^via=<Client> is a dask client\. Pass its",
        ),
        (
            {"via": "processes", "chunksize": 2},
            ValueError,
            r"^chunksize=2 is for pools: via=",
        ),
        (
            {"via": ManualPool(), "chunksize": 0},
            ValueError,
            r"^chunksize=0 is less than 1\. Pass how",
        ),
        (
            {"chunksize": 2},
            ValueError,
            r"^chunksize=2 is for calls that are sent to a pool, and",
        ),
    ],
)
async def test_refusals(options: Any, kind: type[Exception], message: str) -> None:
    """Each names the value, the reason, and the way out, before anything is read or called."""
    source = iter([1])
    with pytest.raises(kind, match=message):
        await TaskExecutor().map(double, source, **options)
    assert next(source) == 1


@pytest.mark.parametrize("via", ["processes", ManualPool()])
async def test_async_function_and_awaitable_are_refused(via: Any) -> None:
    """There is no event loop in a worker."""
    awaitable = nothing()
    with pytest.raises(TypeError, match=r"^fn=<coroutine .* Pass a plain function; what is aw"):
        await TaskExecutor().run(cast("Any", awaitable), via=via)
    awaitable.close()
    with pytest.raises(TypeError, match=r"^fn=<function nothing .* is an async function: a w"):
        await TaskExecutor().run(nothing, via=via)


def test_pool_and_its_limit_are_checked() -> None:
    """ExternalPool refuses what is none, and a limit that lets nothing in."""
    with pytest.raises(TypeError, match=r"^pool=3 is .* Pass a concurrent.futures.Executor\.$"):
        ExternalPool(cast("Executor", 3))
    with pytest.raises(ValueError, match=r"^limit=0 is less than 1\. Pass how many calls the pool"):
        ExternalPool(ManualPool(), limit=0)
    assert repr(ExternalPool(ManualPool(), limit=2)) == "<ExternalPool ManualPool limit=2>"
