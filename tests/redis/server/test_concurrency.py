"""`RedisConcurrencyLimiter` with real servers and real processes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest

from mtaio.exceptions import LeaseLostError
from mtaio.redis import RedisConcurrencyLimiter, RedisStore
from mtaio.redis._slots import EXCHANGE, Answer, keys_of
from mtaio.testing import check_limiter
from mtaio.testing._check_limiter import CLAUSES
from tests.redis.exchanging import Slots
from tests.redis.scripts import RealScripts
from tests.redis.server.slots_holder import write
from tests.redis.servers import serving

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.redis.scripts import Connection
    from tests.redis.servers import Server

assert sys.platform != "win32", "the servers are for POSIX"

LEASE = 1.0


@contextmanager
def program(name: str, *args: object) -> Generator[subprocess.Popen[str]]:
    """Run one of the programs beside this file."""
    with subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, "-m", f"tests.redis.server.{name}", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def line(process: subprocess.Popen[str]) -> str:
    """Return what it prints next."""
    assert process.stdout is not None
    text = await anyio.to_thread.run_sync(process.stdout.readline)
    return text.strip()


async def go_on(process: subprocess.Popen[str]) -> None:
    """Send it a line."""
    assert process.stdin is not None
    process.stdin.write("\n")
    await anyio.to_thread.run_sync(process.stdin.flush)


async def settled(server: Server, lease: float) -> None:
    """Wait until the server has been up for a lease, before which it lends nothing."""
    async with RedisStore(server.url) as store:
        while True:
            information = await store.command("INFO", "server")
            up = int(information.split(b"uptime_in_seconds:")[1].split()[0])
            if up >= lease:
                return
            await anyio.sleep(0.1)


async def test_stand_in_does_what_the_script_does(shared_server: Server) -> None:
    """What the tests on the virtual clock rely on: both answer the same to the same calls."""
    await settled(shared_server, 3)
    chance = random.Random(5)  # noqa: S311 - for a test
    keys = keys_of(uuid4().hex)
    numbers = dict.fromkeys("abcd", 0)
    slots = dict.fromkeys("abcd", 0)
    async with RedisStore(shared_server.url) as store, Slots(latency=0) as double:
        for _ in range(150):
            name = chance.choice("abcd")
            numbers[name] += 1
            held = chance.randint(0, slots[name])
            told: list[Any] = [f"{name}/0", numbers[name], held, chance.choice((0, 1, 2, 5))]
            told += [chance.choice((3, 4, 8)), 3e6, 3e6]
            real = Answer(*await store.script(EXCHANGE, keys, told))
            twin = Answer(*await double.script(EXCHANGE, keys, told))
            assert real[:2] == twin[:2], told
            assert real[3:5] == twin[3:5], told
            assert real.kept == twin.kept, told
            assert bool(real.ask_again) == bool(twin.ask_again), told
            if real.in_force:
                slots[name] = held + real.granted
        late = Answer(*await store.script(EXCHANGE, keys, ["a/0", 1, 0, 5, 99, 3e6, 3e6]))
        assert late.granted == 0
        lost = Answer(*await store.script(EXCHANGE, keys, ["e/0", 1, 1, 0, 99, 3e6, 3e6]))
        assert not lost.in_force


async def test_late_call_keeps_no_slot_of_the_dead(shared_server: Server) -> None:
    """A call that comes after a later one, as a process dies, leaves that one's slot free."""
    await settled(shared_server, LEASE)
    keys = keys_of(uuid4().hex)
    async with RedisStore(shared_server.url) as store:

        async def tell(name: str, number: int, lease: float) -> Answer:
            told = (f"{name}/0", number, 0, 1, 1, lease * 1e6, 5e4)
            return Answer(*await store.script(EXCHANGE, keys, told))

        assert (await tell("dead", 1, 0.2)).granted == 1
        assert (await tell("late", 2, LEASE)).granted == 0
        await anyio.sleep(0.25)
        assert (await tell("late", 1, LEASE)).granted == 0
        assert (await tell("late", 3, LEASE)).granted == 1


async def test_servers_clock_that_was_set_back(shared_server: Server) -> None:
    """The lease of a dead process ends in its time, and so does the pause after a restart."""
    await settled(shared_server, 0.3)
    async with RedisStore(shared_server.url, timeout=10) as store:
        key = uuid4().hex
        state, members, *_ = keys_of(key)
        seconds, _ = await store.command("TIME")
        later = (int(seconds) + 3600) * 10**6
        fields = {"total": 1, "seen": later, "quiet": later, "token": later, "h:dead/0": 1}
        await store.command("HSET", state, *(each for pair in fields.items() for each in pair))
        await store.command("ZADD", members, later, "dead/0")
        with anyio.fail_after(10):
            async with RedisConcurrencyLimiter(store, key, 1, lease=0.3) as lease:
                assert lease.token > later


async def test_slots_and_tokens(shared_server: Server) -> None:
    """Two stores share the slots of a key; tokens grow in the order in which they are granted."""
    await settled(shared_server, LEASE)
    key = uuid4().hex
    tokens: list[int] = []
    inside = peak = 0
    async with RedisStore(shared_server.url) as one, RedisStore(shared_server.url) as two:
        limiters = [RedisConcurrencyLimiter(store, key, 2, lease=LEASE) for store in (one, two) * 2]

        async def work(number: int) -> None:
            nonlocal inside, peak
            async with limiters[number % 4] as lease:
                inside += 1
                peak = max(peak, inside)
                tokens.append(lease.token)
                await anyio.sleep(0.002)
                inside -= 1

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(work, number)
        assert peak == 2
        assert len(set(tokens)) == 100
        single = RedisConcurrencyLimiter(one, f"{key}1", 1, lease=LEASE)
        other = RedisConcurrencyLimiter(two, f"{key}1", 1, lease=LEASE)
        tokens.clear()

        async def alone(limiter: RedisConcurrencyLimiter) -> None:
            async with limiter as lease:
                tokens.append(lease.token)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(alone, single)
                    group.start_soon(alone, other)
        assert tokens == sorted(tokens)


async def test_clauses_of_the_contract(shared_server: Server) -> None:
    """Those that need no virtual clock hold with a real server as well."""
    await settled(shared_server, LEASE)
    async with RedisStore(shared_server.url, timeout=10) as store:

        def make(slots: int) -> RedisConcurrencyLimiter:
            return RedisConcurrencyLimiter(store, uuid4().hex, slots, lease=LEASE)

        for clause in CLAUSES:
            if clause.name in {"bound", "order"}:
                for scenario in clause.scenarios:
                    await scenario(make)


def test_contract(connection: Connection, backend: str) -> None:
    """All of them hold when a real server runs the script."""
    # The server's clock runs while that of the test stands: longer than a machine stands still.
    while int(connection.ask("INFO", "server").split(b"uptime_in_seconds:")[1].split()[0]) < 5:
        time.sleep(0.1)
    check_limiter(
        lambda slots: RedisConcurrencyLimiter(RealScripts(connection), uuid4().hex, slots, lease=5),
        seeds=0,
        exhaustive=None,
        backends=[backend],
    )


async def test_cancelled_at_random(redis_server: Server) -> None:
    """Cancelled at any moment, a task leaves no slot behind."""
    await settled(redis_server, 5)
    chance = random.Random(7)  # noqa: S311 - for a test
    async with RedisStore(redis_server.url) as store:
        limiter = RedisConcurrencyLimiter(store, uuid4().hex, 3, lease=5)

        async def work() -> None:
            with anyio.move_on_after(chance.uniform(0, 0.006)):
                async with limiter:
                    await anyio.sleep(0.001)

        for _ in range(20):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(work)
        with anyio.fail_after(3):
            for _ in range(3):
                await limiter.acquire()
        assert limiter.statistics().in_use == 3


async def test_killed_process_gives_all_back(shared_server: Server, anyio_backend: str) -> None:
    """What a process held that is killed is free after its lease, all at once."""
    await settled(shared_server, LEASE)
    key = uuid4().hex
    async with RedisStore(shared_server.url) as store:
        limiter = RedisConcurrencyLimiter(store, key, 3, lease=LEASE)
        with program("slots_holder", anyio_backend, shared_server.url, key, 3, 3, LEASE) as process:
            tokens = {int((await line(process)).split()[1]) for _ in range(3)}
            assert await limiter.try_acquire() is None
            process.kill()
            start = time.monotonic()
            leases = [await limiter.acquire() for _ in range(3)]
            took = time.monotonic() - start
        assert took < LEASE + 5  # so much more only on a machine that stands still
        assert min(lease.token for lease in leases) > max(tokens)


async def test_process_that_stood_still(shared_server: Server, anyio_backend: str) -> None:
    """A process that goes on after its lease has run out is cancelled, and its token refused."""
    await settled(shared_server, LEASE)
    key = uuid4().hex
    async with RedisStore(shared_server.url) as store:
        limiter = RedisConcurrencyLimiter(store, key, 1, lease=LEASE)
        with program("slots_holder", anyio_backend, shared_server.url, key, 1, 1, LEASE) as process:
            token = int((await line(process)).split()[1])
            process.send_signal(signal.SIGSTOP)
            async with limiter as lease:
                assert lease.token > token
                assert await write(store, key, lease) == "accepted"
                process.send_signal(signal.SIGCONT)
                await go_on(process)
                assert await line(process) == "refused"
                assert await line(process) == f"lost {token}"
        with program("slots_holder", anyio_backend, shared_server.url, key, 1, 1, LEASE) as process:
            assert (await line(process)).startswith("held")
            await go_on(process)
            assert await line(process) == "accepted"
            assert await line(process) == "given back"


async def test_restart_of_the_server() -> None:
    """Holders go on if the server is back in time, and nothing is lent until they had the time."""
    with serving() as server:
        await settled(server, 2)
        async with RedisStore(server.url) as store, RedisStore(server.url) as another:
            limiter = RedisConcurrencyLimiter(store, "key", 1, lease=2)
            other = RedisConcurrencyLimiter(another, "key", 1, lease=2, on_failure="wait")
            async with limiter as lease:
                server.kill()
                server.start()
                start = anyio.current_time()
                with pytest.raises(TimeoutError):
                    await other.acquire(timeout=4)
                assert not lease.lost
            async with other as later:
                assert anyio.current_time() - start < 10
                assert later.token > lease.token
            with pytest.raises(LeaseLostError, match="the server no longer knows of it"):
                await forgotten(limiter, store)


async def forgotten(limiter: RedisConcurrencyLimiter, store: RedisStore) -> None:
    """Hold a slot that the server forgets."""
    async with limiter:
        await store.command("FLUSHALL")
        await anyio.sleep(30)


def is_written(file: Path) -> bool:
    """Return whether there are some lines."""
    return file.exists() and file.stat().st_size > 500


async def test_processes_are_killed_and_stopped(
    redis_server: Server, anyio_backend: str, tmp_path: Path
) -> None:
    """Counted by the processes themselves, no more work than the limit, and what lives goes on."""
    await settled(redis_server, LEASE)
    key = uuid4().hex
    files = [tmp_path / str(number) for number in range(4)]
    args = (anyio_backend, redis_server.url, key, 2, LEASE, 4, 0.01)
    with (
        program("slots_worker", *args, files[0]) as killed,
        program("slots_worker", *args, files[1]) as stopped,
        program("slots_worker", *args, files[2]) as one,
        program("slots_worker", *args, files[3]) as two,
    ):
        with anyio.fail_after(60):
            while not all(map(is_written, files)):  # noqa: ASYNC110 - another process does it
                await anyio.sleep(0.05)
        killed.kill()
        stopped.send_signal(signal.SIGSTOP)
        halt = time.monotonic()
        await anyio.sleep(3 * LEASE)
        stopped.send_signal(signal.SIGCONT)
        await anyio.sleep(LEASE)
        for process in (stopped, one, two):
            assert process.stdin is not None
            process.stdin.close()
        for process in (stopped, one, two):
            assert await anyio.to_thread.run_sync(process.wait) == 0
    changes: list[tuple[float, int]] = []
    late = 0
    for number, file in enumerate(files):
        inside: dict[str, float] = {}
        for kind, moment, token in map(str.split, file.read_text().splitlines()):
            if kind == "S":
                inside[token] = float(moment)
                changes.append((float(moment), 1))
            elif kind == "E":
                begun = inside.pop(token)
                # Of the one that was stopped, what it did after it had lost the lease is not meant.
                over = number == 1 and begun < halt and float(moment) > halt + LEASE
                late += over
                changes.append((halt if over else float(moment), -1))
        assert number == 0 or not inside
        changes += [(halt, -1)] * len(inside)
    assert max(accumulate(change for _, change in sorted(changes))) <= 2
    after = [
        float(moment)
        for file in files[2:]
        for kind, moment, _ in map(str.split, file.read_text().splitlines())
        if kind == "E" and float(moment) > halt + LEASE
    ]
    assert len(after) > 30
    assert "X" not in files[2].read_text()
