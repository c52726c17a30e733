"""TaskExecutor with ``via=``: real pools of real processes, in real time."""

from __future__ import annotations

import runpy
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import anyio
import dask.config
import distributed
import loky
import pytest
import ray

from mtaio.core import ExternalPool, TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from tests.backends import BACKENDS
from tests.pages import EXAMPLES
from tests.pools.conftest import WORKERS
from tests.pools.work import die_at_three, note, note_span, refuse_three, span, square

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


@contextmanager
def process_pool() -> Iterator[Executor]:
    """The standard library's."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("forkserver")) as pool:
        yield pool


@contextmanager
def loky_pool() -> Iterator[Executor]:
    """Loky's, which is joblib's."""
    pool = loky.get_reusable_executor(WORKERS, timeout=60, reuse=False)
    yield pool
    pool.shutdown(wait=True, kill_workers=True)


@contextmanager
def dask_client() -> Iterator[Any]:
    """A cluster of processes on this machine; of theirs, a dead one fails what it had."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@contextmanager
def dask_pool() -> Iterator[Executor]:
    """Its pool, which would make equal calls once if they were pure."""
    with dask_client() as client:
        yield client.get_executor(pure=False)


@contextmanager
def ray_pool() -> Iterator[Executor]:
    """The guide's, on the cluster that the fixtures have started."""
    yield runpy.run_path(str(EXAMPLES / "pools" / "ray_pool.py"))["RayPool"]()


POOLS = [process_pool, loky_pool, dask_pool, ray_pool]
NAMES = ["processes", "loky", "dask", "ray"]


@pytest.fixture(scope="module", params=POOLS, ids=NAMES)
def pool(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Return one pool after another."""
    if request.param is ray_pool:
        request.getfixturevalue("ray_cluster")
    with request.param() as pool:
        list(pool.map(square, range(WORKERS)))  # its workers are there
        yield pool


@pytest.fixture(params=POOLS, ids=NAMES)
def pool_maker(request: pytest.FixtureRequest) -> Any:
    """Return what makes one pool after another."""
    if request.param is ray_pool:
        request.getfixturevalue("ray_cluster")
    return request.param


@pytest.fixture(params=BACKENDS)
def finish(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Return what runs an async function in real time, on one backend after another."""
    return partial(anyio.run, backend=request.param)


Finish = Any


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """Return how many of some stretches of time there were at the same moment."""
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


def test_results_errors_and_progress(pool: Executor, finish: Finish) -> None:
    """They stand in the order of the items, one by one and in chunks."""
    executor = TaskExecutor(64)

    async def main() -> None:
        done: list[int] = []
        for chunksize in (1, 7):
            assert await executor.map(
                square,
                range(50),
                via=pool,
                chunksize=chunksize,
                on_progress=lambda so_far, _: done.append(so_far),
            ) == [x * x for x in range(50)]
            results = await executor.map(
                refuse_three, range(5), via=pool, chunksize=chunksize, errors="return"
            )
            assert [repr(result) for result in results] == ["0", "1", "2", "LookupError(3)", "4"]
        assert done == [*range(1, 51)] * 2
        async with executor.stream(square, range(5), via=pool, ordered=True) as stream:
            assert [result async for result in stream] == [0, 1, 4, 9, 16]
        assert await executor.run(square, 5, via=pool) == 25

    finish(main)


def test_argument_that_cannot_be_pickled(pool: Executor, finish: Finish) -> None:
    """The error says what a pool takes, one by one and in chunks."""

    async def main() -> None:
        for chunksize in (1, 2):
            (error,) = await TaskExecutor().map(
                repr, [threading.Lock()], via=pool, chunksize=chunksize, errors="return"
            )
            assert isinstance(error, Exception)
            assert any("from the top level of a module" in text for text in error.__notes__)

    finish(main)


def test_no_more_at_once_than_the_limit(pool: Executor, finish: Finish) -> None:
    """Counted by the workers: of three workers, two are busy."""

    async def main() -> None:
        executor = TaskExecutor()
        spans = await executor.map(span, [0.02] * 10, via=pool, limit=2)
        assert most_at_once(spans) == 2
        spans = await executor.map(span, [0.02] * 10, via=ExternalPool(pool, limit=2))
        assert most_at_once(spans) == 2

    finish(main)


def test_no_more_starts_than_the_rate(pool: Executor, finish: Finish) -> None:
    """Calls are handed over as the rate allows."""

    async def main() -> None:
        begin = time.monotonic()
        spans = await TaskExecutor().map(span, [0] * 5, via=pool, rate=20)
        begins = sorted(start for start, _ in spans)
        assert all(start - begin >= number / 20 - 0.01 for number, start in enumerate(begins))

    finish(main)


def test_what_is_out_of_time_or_cancelled(pool: Executor, finish: Finish, tmp_path: Path) -> None:
    """Calls that wait in the pool are never made; those that run end by themselves."""

    async def main() -> None:
        executor = TaskExecutor()
        # More than the pools take ahead of time, and than they make while a busy machine is late.
        names = [f"{number}" for number in range(12 * WORKERS)]
        fn = partial(note, str(tmp_path), seconds=0.4)
        results = await executor.map(fn, names, via=pool, timeout=0.2, errors="return")
        assert {type(result) for result in results} == {MTAIOTimeoutError}
        with anyio.move_on_after(0.2):
            await executor.map(fn, [f"again {name}" for name in names], via=pool)
        await executor.map(fn, ["last"], via=pool)  # begins after what still waits there

    finish(main)
    assert len(list(tmp_path.iterdir())) <= 12 * WORKERS  # half of them


def test_limit_holds_after_timeouts_and_cancellation(
    pool: Executor, finish: Finish, tmp_path: Path
) -> None:
    """Counted by the workers: a call that nobody waits for any more still has its place."""

    async def main() -> None:
        limited = ExternalPool(pool, limit=2)
        executor = TaskExecutor()
        fn = partial(note_span, str(tmp_path), seconds=0.3)
        names = [f"late {number}" for number in range(4)]
        await executor.map(fn, names, via=limited, timeout=0.1, errors="return")
        with anyio.move_on_after(0.35):
            await executor.map(fn, [f"cancelled {number}" for number in range(9)], via=limited)
        await executor.map(fn, ["last", "very last"], via=limited)
        assert limited.statistics().in_use == 0

    finish(main)
    texts = [path.read_text(encoding="utf-8").split() for path in tmp_path.iterdir()]
    assert most_at_once([(float(begin), float(end)) for begin, end in texts]) == 2


def test_dead_worker_fails_what_it_had(finish: Finish, pool_maker: Any) -> None:
    """The call goes on to its end; what comes later too, where the pool mends itself."""

    async def main() -> None:
        executor = TaskExecutor()
        with pool_maker() as pool:
            results = await executor.map(die_at_three, range(6), via=pool, limit=1, errors="return")
        assert results[:3] == [0, 1, 2]
        assert isinstance(results[3], Exception)
        if pool_maker in {dask_pool, ray_pool}:
            assert results[4:] == [4, 5]
        else:
            assert all(isinstance(result, Exception) for result in results[4:])

    finish(main)


@pytest.mark.usefixtures("ray_cluster")
def test_what_ray_adds(finish: Finish) -> None:
    """References are resolved; errors are the function's own, and say where they were raised."""

    async def main() -> None:
        executor = TaskExecutor()
        with ray_pool() as pool:
            assert await executor.map(square, [ray.put(3), 4], via=pool) == [9, 16]
            (error,) = await executor.map(refuse_three, [3], via=pool, errors="return")
        assert type(error) is LookupError
        assert "refuse_three" in str(error.__cause__)

    finish(main)


def test_chunks_cost_no_more_than_dasks_own_map() -> None:
    """Calls that do nothing, in one run with those of its client."""
    count = 1000
    with dask_client() as client:

        async def main() -> float:
            executor = TaskExecutor(256)
            begin = time.perf_counter()
            client.gather(client.map(square, range(count)))
            middle = time.perf_counter()
            await executor.map(square, range(count), via=client.get_executor(), chunksize=32)
            return (time.perf_counter() - middle) / (middle - begin)

        assert anyio.run(main) <= 1.5
