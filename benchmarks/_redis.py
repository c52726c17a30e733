"""
One rate for many processes: ours beside rivals, ``python -m benchmarks._redis --rate 2000``.

Starts a server of its own, and processes that acquire as fast as they are let. Their stamps, on the
machine's monotonic clock, say how much of the rate was reached, what each process got of it, and
by how much more than ``burst + rate * t`` was granted in the worst span, as seconds of the rate.
Rivals need the group bench-redis.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Acquire = Callable[[], Awaitable[object]]

assert sys.platform != "win32", "the servers are for POSIX"  # noqa: S101 - told to type checkers


async def mtaio(url: str, rate: int, burst: int) -> AsyncGenerator[Acquire]:
    from mtaio.redis import RedisRateLimiter, RedisStore  # noqa: PLC0415 - one contender a process

    store = RedisStore(url, timeout=5)
    limiter = RedisRateLimiter(store, "bench", rate, burst=burst)
    async with store:
        await store.ping()
        yield limiter.acquire
        statistics = limiter.statistics()
        print(json.dumps({"calls": statistics.server_calls, "lost": statistics.lost}), flush=True)


async def limits(url: str, rate: int, burst: int) -> AsyncGenerator[Acquire]:
    from limits import RateLimitItemPerSecond  # noqa: PLC0415 - as above
    from limits.aio.storage import RedisStorage  # noqa: PLC0415 - as above
    from limits.aio.strategies import SlidingWindowCounterRateLimiter  # noqa: PLC0415 - as above

    del burst  # it has none
    limiter = SlidingWindowCounterRateLimiter(
        RedisStorage(f"async+{url}", implementation="redispy")
    )
    item = RateLimitItemPerSecond(rate)
    calls = 0

    async def acquire() -> None:
        nonlocal calls
        while True:
            calls += 1
            if await limiter.hit(item, "bench"):
                return
            stats = await limiter.get_window_stats(item, "bench")
            calls += 1
            await anyio.sleep(max(0.001, min(0.05, stats.reset_time - time.time())))

    yield acquire
    print(json.dumps({"calls": calls, "lost": 0}), flush=True)


async def throttled(url: str, rate: int, burst: int) -> AsyncGenerator[Acquire]:
    from throttled.asyncio import (  # noqa: PLC0415 - as above
        RateLimiterType,
        Throttled,
        rate_limiter,
        store,
    )

    limiter = Throttled(
        key="bench",
        using=RateLimiterType.GCRA.value,
        quota=rate_limiter.per_sec(rate, burst=burst),
        store=store.RedisStore(server=url),
        timeout=3600,
    )
    yield limiter.limit
    print(json.dumps({"calls": 0, "lost": 0}), flush=True)


async def pyrate(url: str, rate: int, burst: int) -> AsyncGenerator[Acquire]:
    from pyrate_limiter import Duration, Limiter, Rate, RedisBucket  # noqa: PLC0415 - as above
    from redis.asyncio import ConnectionPool, Redis  # noqa: PLC0415 - as above

    del burst  # it has none
    pool = ConnectionPool.from_url(url)
    made: Any = RedisBucket.init(
        [Rate(rate, Duration.SECOND)], Redis(connection_pool=pool), "bench"
    )
    limiter = Limiter(await made)

    async def acquire() -> None:
        await limiter.try_acquire_async("bench", blocking=True)

    yield acquire
    print(json.dumps({"calls": 0, "lost": 0}), flush=True)


CONTENDERS = {each.__name__: each for each in (mtaio, limits, throttled, pyrate)}


def work(options: argparse.Namespace) -> None:
    """Be one of the processes."""
    stamps = array.array("d")

    async def main() -> None:
        contender = CONTENDERS[options.work](options.url, options.rate, options.burst)
        acquire = await anext(contender)
        print("ready", flush=True)
        start = float(await anyio.to_thread.run_sync(sys.stdin.readline))
        await anyio.sleep(max(0, start - time.monotonic()))

        async def one() -> None:
            while True:
                await acquire()
                stamps.append(time.monotonic())

        with anyio.move_on_after(options.seconds):
            async with anyio.create_task_group() as group:
                for _ in range(options.tasks):
                    group.start_soon(one)
        await anext(contender, None)

    anyio.run(main, backend=options.backend)
    Path(options.out).write_bytes(stamps.tobytes())
    os._exit(0)  # clients of rivals complain of connections that they leave open


def measure(name: str, options: argparse.Namespace) -> str:
    """Run the processes of one contender, and return what to print."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"redis://127.0.0.1:{port}/0"
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(  # noqa: S603 - a server of ours
            [
                *(shutil.which(options.server) or options.server, "--port", str(port)),
                *("--bind", "127.0.0.1", "--save", "", "--dir", folder),
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            return _measure(name, options, url, Path(folder))
        finally:
            server.kill()
            server.wait()


def _measure(name: str, options: argparse.Namespace, url: str, folder: Path) -> str:
    shared = [f"--{each}={getattr(options, each)}" for each in SHARED]
    command = [sys.executable, "-m", "benchmarks._redis", f"--work={name}", f"--url={url}", *shared]
    outs = [folder / str(number) for number in range(options.processes)]
    processes = [
        subprocess.Popen(  # noqa: S603 - ourselves
            [*command, f"--out={out}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for out in outs
    ]
    for process in processes:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            return f"{name}: does not start"
    start = time.monotonic() + 0.5
    for process in processes:
        if process.stdin is not None:
            process.stdin.write(f"{start}\n")
            process.stdin.flush()
    told = [json.loads(process.communicate()[0] or "{}") for process in processes]
    if not all(out.exists() for out in outs):
        return f"{name}: fails"
    each = [array.array("d", out.read_bytes()) for out in outs]
    stamps = sorted(stamp for stamps in each for stamp in stamps)
    least, worst = float("inf"), 0.0
    for number, stamp in enumerate(stamps):
        least = min(least, number - options.rate * stamp)
        worst = max(worst, number + 1 - options.rate * stamp - least - options.burst)
    steady = [sum(stamp > start + 1 for stamp in stamps) for stamps in each]
    reached = sum(steady) / options.rate / (options.seconds - 1)
    mean = max(1, sum(steady)) / len(steady)
    calls = sum(each.get("calls", 0) for each in told)
    lost = sum(each.get("lost", 0) for each in told)
    return (
        f"{name:10} reached {reached:7.1%}, least {min(steady) / mean:.2f} and most "
        f"{max(steady) / mean:.2f} of the mean, excess {worst / options.rate * 1e3:7.1f} ms, "
        f"calls {calls / max(1, len(stamps)):.3f} per token, lost {lost}, "
        f"load {os.getloadavg()[0]:.1f}"
    )


SHARED = ("rate", "burst", "seconds", "tasks", "backend")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._redis", description=__doc__)
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=50, help="in each process")
    parser.add_argument("--backend", default="asyncio", help="rivals know asyncio alone")
    parser.add_argument("--server", default="redis-server")
    parser.add_argument("--names", default=",".join(CONTENDERS), help="with commas")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    for name in options.names.split(","):
        print(measure(name, options), flush=True)


if __name__ == "__main__":
    main()
