"""`RedisLeader` with real servers, and with processes that are killed, stopped and ended."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import anyio

from mtaio._internal import clock
from mtaio.redis import RedisStore
from mtaio.redis._leader import CLAIM
from tests.redis.leading import Elections

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from mtaio.types import Argument
    from tests.redis.servers import Server

assert sys.platform != "win32", "the servers are for POSIX"

from tests.redis.server.test_concurrency import program, settled  # noqa: E402 - not on Windows

TTL = 1.0
PERIOD = 0.2


class Line(NamedTuple):
    """What a process wrote."""

    kind: str
    moment: float
    token: int
    process: int


def lines(path: Path) -> list[Line]:
    """Return what has been written, in its order."""
    found: list[Line] = []
    for text in path.read_text().splitlines() if path.exists() else []:
        kind, moment, token, process = text.split()
        found.append(Line(kind, float(moment), int(token), int(process)))
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - a file, which another process writes
            await anyio.sleep(0.02)


async def test_leaders_that_die_stop_and_leave(
    shared_server: Server, tmp_path: Path, backend: str
) -> None:
    """Another leads within the lease, or at once; no tick is run twice; a stopped one is fenced."""
    await settled(shared_server, TTL)
    path = tmp_path / "runs"
    arguments = (backend, shared_server.url, uuid4().hex, TTL, PERIOD, 0.05, path)
    with ExitStack() as stack:
        processes: dict[int, subprocess.Popen[str]] = {}
        for _ in range(4):
            process = stack.enter_context(program("leader_worker", *arguments))
            processes[process.pid] = process

        async def successor(of: int, after: float) -> Line:
            await until(
                lambda: any(each.moment > after for each in lines(path) if each.process != of)
            )
            return next(each for each in lines(path) if each.process != of and each.moment > after)

        await until(lambda: len(lines(path)) > 10)
        first = lines(path)[-1]
        moment = time.monotonic()
        processes.pop(first.process).kill()
        second = await successor(first.process, moment)
        assert second.token > first.token
        assert second.moment - moment < TTL + 5

        await until(lambda: len(lines(path)) > 20)
        stopped = processes.pop(second.process)
        stopped.send_signal(signal.SIGSTOP)
        third = await successor(second.process, time.monotonic())
        assert third.token > second.token
        moment = time.monotonic()
        stopped.send_signal(signal.SIGCONT)
        await anyio.sleep(3 * TTL)
        late = [each for each in lines(path) if each.moment > moment]
        assert not [each for each in late if each.token == second.token and each.kind == "S"]

        last = lines(path)[-1]
        leaving = processes.pop(last.process)
        assert leaving.stdin is not None
        moment = time.monotonic()
        leaving.stdin.close()
        fourth = await successor(last.process, moment)
        assert fourth.token > last.token
        await anyio.to_thread.run_sync(leaving.wait)
    starts = [each for each in lines(path) if each.kind == "S"]
    assert [each.token for each in starts] == sorted(each.token for each in starts)
    ticks = (starts[-1].moment - starts[0].moment) / PERIOD
    assert len(starts) <= ticks + 2


async def test_stand_in_does_what_the_script_does(shared_server: Server) -> None:
    """What the tests on the virtual clock rely on: both answer the same to the same calls."""
    key, now = uuid4().hex, int(time.time())
    async with RedisStore(shared_server.url) as store, Elections(latency=0) as double:
        double.skew = now - clock.now()
        for name, token, tick in (
            *(("a", 5, ""), ("a", 5, now - 9.25), ("a", 5, now - 9.25), ("a", 5, "")),
            *(("b", 4, ""), ("b", 4, now - 8.0), ("b", 6, ""), ("b", 6, now - 8.0)),
            *(("a", 5, now - 1.0), ("a", 5, ""), ("a", 6, now - 10.0), ("a", 6, now + 20_000)),
            *(("a", 6, ""), ("a", 6, now - 3.0), ("a", 6, "")),
        ):
            arguments: list[Argument] = [
                name,
                token,
                tick if tick == "" else repr(tick),
                10_800,
                60_000,
            ]
            real = await store.script(CLAIM, [key], arguments)
            assert real == await double.script(CLAIM, [key], arguments), (name, token, tick)
        left = await store.command("PTTL", key)
        assert 0 < left <= 60_000
