"""
What the READMEs of other simulators show, on both backends.

Each test is the scenario of an example of simloop 0.2.2, seedloop 0.4.1 or simloom 0.5.0, written
anew: those run on asyncio alone, on an event loop of their own. What has no test here, and why, is
at the end of docs/en/design/network.md.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
from functools import partial
from itertools import pairwise
from socket import AF_INET
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteReceiveStream
from hypothesis import given
from hypothesis import strategies as st

from mtaio.testing import (
    InvariantError,
    Network,
    Schedule,
    Simulation,
    assert_quiescent,
    current_simulation,
    explore,
    run,
    settle,
)
from tests.rivals.raft import Node, cluster, one_leader_a_term
from tests.testing.network.test_tls_like_loopback import OPENSSL, contexts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import SocketStream


# ---- simloop -------------------------------------------------------------------------------------


async def test_five_minutes_cost_nothing(sim: Simulation) -> None:
    """Sleeping for five minutes takes exactly five minutes of the clock."""
    await anyio.sleep(300)
    assert sim.time() == 300


class Counter:
    """A server that returns a number and stores one; each request on a connection of its own."""

    def __init__(self) -> None:
        self.count = 0

    async def serve(self) -> None:
        """Answer ``get`` with the number, and anything else by storing it."""
        await (await anyio.create_tcp_listener(local_port=8080)).serve(self._answer)

    async def _answer(self, stream: SocketStream) -> None:
        async with stream:
            line = await BufferedByteReceiveStream(stream).receive_until(b"\n", 100)
            if line == b"get":
                await stream.send(b"%d\n" % self.count)
            else:
                self.count = int(line)
                await stream.send(b"ok\n")


async def call(line: bytes) -> bytes:
    """Send a line to the counter, and return the line that it answers."""
    async with await anyio.connect_tcp("counter", 8080) as stream:
        await stream.send(line)
        return await BufferedByteReceiveStream(stream).receive_until(b"\n", 100)


async def increment() -> None:
    """Read the count, and write back one more: the textbook's lost update."""
    seen = int(await call(b"get\n"))
    await call(b"%d\n" % (seen + 1))


async def two_increments(seed: int) -> tuple[int, object]:
    """Let two clients increment, the second 0.2 seconds later; return the count and the trace."""
    counter = Counter()
    async with Network(latency=0.001, jitter=0.049, seed=seed) as net:
        net.host("counter").start(counter.serve)
        await anyio.sleep(1)
        net.host("a").start(increment)
        await anyio.sleep(0.2)
        net.host("b").start(increment)
        await anyio.sleep(2)
    return counter.count, net.trace


def test_update_lost_over_the_wire(backend: str) -> None:
    """Under some seeds of the network the second reads before the first has written; again too."""
    counts = [run(two_increments, seed, backend=backend)[0] for seed in range(100)]
    assert set(counts) == {1, 2}
    seed = counts.index(1)
    again = [run(two_increments, seed, backend=backend) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0][0] == 1


def test_update_lost_in_some_order(backend: str) -> None:
    """Without any latency it is a matter of who runs when, and the search finds it."""

    @explore(backends=[backend], exhaustive=None, seeds=200)
    async def both_count() -> None:
        counter = Counter()
        async with Network() as net, anyio.create_task_group() as group:
            net.host("counter").start(counter.serve)
            await settle()
            group.start_soon(increment)
            for _ in range(25):
                await checkpoint()
            group.start_soon(increment)
        assert counter.count == 2

    with pytest.raises(AssertionError, match=r"^assert 1 == 2") as lost:
        both_count()
    assert "to see it again: " in lost.value.__notes__[-1]


def test_audit_before_the_deposit(backend: str) -> None:
    """Of the steps of five tasks one is out of order in the shrunk schedule: the audit's."""

    @explore(backends=[backend])
    async def audit_sees_every_deposit() -> None:
        balance = 0
        audited: list[int] = []

        async def chatter() -> None:
            for _ in range(3):
                await anyio.sleep(0.001)

        async def deposit() -> None:
            nonlocal balance
            balance += 1

        async def audit() -> None:
            audited.append(balance)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(chatter)
            await anyio.sleep(0.0015)
            group.start_soon(deposit)
            group.start_soon(audit)
        assert audited == [1]

    with pytest.raises(AssertionError) as seen:
        audit_sees_every_deposit()
    assert len(seen.value.__notes__[-1].partition("tape=")[2].partition(" ")[0].split(",")) == 1


async def replicate(payloads: list[list[str]]) -> list[list[str]]:
    """Have each writer append its payloads to a log on another host; return what the log has."""
    log: list[list[str]] = [[] for _ in payloads]

    async def keep(stream: SocketStream) -> None:
        async with stream:
            lines = BufferedByteReceiveStream(stream)
            writer = int(await lines.receive_until(b"\n", 100))
            for _ in payloads[writer]:
                size = int(await lines.receive_until(b"\n", 100))
                log[writer].append((await lines.receive_exactly(size)).decode())
                await stream.send(b"+")

    async def serve() -> None:
        await (await anyio.create_tcp_listener(local_port=80)).serve(keep)

    async def write(writer: int) -> None:
        async with await anyio.connect_tcp("log", 80) as stream:
            await stream.send(b"%d\n" % writer)
            for payload in payloads[writer]:
                data = payload.encode()
                await stream.send(b"%d\n" % len(data) + data)
                await stream.receive(1)

    async with Network(latency=0.001, jitter=0.01) as net, anyio.create_task_group() as group:
        net.host("log").start(serve)
        await settle()
        for writer in range(len(payloads)):
            group.start_soon(write, writer)
    return log


@given(
    payloads=st.lists(st.lists(st.text(max_size=5), max_size=3), max_size=3), seed=st.integers(0, 7)
)
def test_log_keeps_every_append(backend: str, payloads: list[list[str]], seed: int) -> None:
    """Hypothesis draws what is written and the schedule; the log has all of it, in order."""
    schedule = Schedule(seed=seed)
    assert run(replicate, payloads, backend=backend, schedule=schedule) == payloads


async def pinged(net: Network, *names: str) -> set[str]:
    """Return which hosts a datagram from each of the others reaches within a second."""
    heard: set[str] = set()

    async def listen(name: str) -> None:
        async with await anyio.create_udp_socket(local_host=name, local_port=9) as socket:
            while True:
                data, _ = await socket.receive()
                heard.add(f"{data.decode()}>{name}")

    async def ping(sender: str) -> None:
        async with await anyio.create_udp_socket(local_host=sender) as socket:
            for name in names:
                if name != sender:
                    await socket.sendto(sender.encode(), name, 9)

    async with anyio.create_task_group() as group:
        for name in names:
            with net.host(name):
                group.start_soon(listen, name)
        await settle()
        for name in names:
            with net.host(name):
                group.start_soon(ping, name)
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    return heard


async def test_partition_of_sets_heals_in_time() -> None:
    """One node is cut off from two others for five seconds; those two reach each other."""
    nodes = ("n1", "n2", "n3")
    every = {f"{a}>{b}" for a in nodes for b in nodes if a != b}
    async with Network(latency=0.001, jitter=0.009) as net:
        fault = net.partition("n1", ["n2", "n3"])
        assert await pinged(net, *nodes) == {"n2>n3", "n3>n2"}
        assert fault.struck == 4
        await anyio.sleep(4)
        net.heal()
        assert await pinged(net, *nodes) == every


async def test_datagrams_are_lost() -> None:
    """A link that loses a fifth of a thousand datagrams, and doubles a tenth, does about that."""
    received: list[bytes] = []

    async def listen() -> None:
        async with await anyio.create_udp_socket(family=AF_INET, local_port=9) as socket:
            async for data, _ in socket:
                received.append(data)

    async with Network(latency=0.01, jitter=0.01, seed=3) as net:
        net.link("main", "peer", loss=0.2, duplicate=0.1)
        net.host("peer").start(listen)
        await settle()
        async with await anyio.create_udp_socket(family=AF_INET) as socket:
            for number in range(1000):
                await socket.sendto(b"%d" % number, "peer", 9)
                await anyio.sleep(0.001)
        await anyio.sleep(1)
    assert 750 < len(set(received)) < 850
    assert any(int(a) > int(b) for a, b in pairwise(received))  # some overtook others
    assert 40 < len(received) - len(set(received)) < 120  # which have come twice


async def test_crash_without_a_word_and_return() -> None:
    """A host without power answers nothing: connecting fails after 127 seconds. It comes back."""
    lives: list[float] = []

    async def serve() -> None:
        lives.append(anyio.current_time())

        async def hang_up(stream: SocketStream) -> None:
            await stream.aclose()

        await (await anyio.create_tcp_listener(local_port=80)).serve(hang_up)

    async with Network() as net:
        host = net.host("node2")
        host.start(serve)
        await settle()
        host.kill(silent=True)
        assert not host.up
        with pytest.raises(OSError, match=r"."):
            await anyio.connect_tcp("node2", 80)
        assert anyio.current_time() == 127
        host.restart()
        await settle()
        async with await anyio.connect_tcp("node2", 80) as stream:
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
    assert lives == [0, 127]


class Leases:
    """A server that grants a lease for ten seconds of its own clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.ends = -math.inf

    async def serve(self) -> None:
        """Answer each connection with ``yes`` or ``no``."""
        await (await anyio.create_tcp_listener(local_port=80)).serve(self._answer)

    async def _answer(self, stream: SocketStream) -> None:
        async with stream:
            free = self.clock() >= self.ends
            if free:
                self.ends = self.clock() + 10
            await stream.send(b"yes" if free else b"no")


async def held(clock: Callable[[], float], log: list[tuple[float, str]], name: str) -> None:
    """Get the lease, and use it until the client's own clock says that it is over."""
    while True:
        asked = clock()
        async with await anyio.connect_tcp("leases", 80) as stream:
            if await stream.receive() == b"yes":
                break
        await anyio.sleep(1)
    log.append((anyio.current_time(), f"{name} begins"))
    while clock() < asked + 10:  # noqa: ASYNC110 - nobody could set an event
        await anyio.sleep(0.1)
    log.append((anyio.current_time(), f"{name} ends"))


@pytest.mark.parametrize("rate", [1.0, 0.8])
async def test_clocks_that_disagree(rate: float) -> None:
    """A lease is held by one alone, but by two if the clock of the first goes too slowly."""

    def slow() -> float:
        return anyio.current_time() * rate

    log: list[tuple[float, str]] = []
    async with Network(latency=0.01) as net, anyio.create_task_group() as group:
        net.host("leases").start(Leases(anyio.current_time).serve)
        await settle()
        with net.host("a"):
            group.start_soon(held, slow, log, "a")
        await settle()
        with net.host("b"):
            group.start_soon(held, anyio.current_time, log, "b")
    both = ["a begins", "b begins", "a ends", "b ends"]
    assert ([what for _, what in sorted(log)] == both) is (rate < 1)


async def test_disk_outlives_a_crash() -> None:
    """A host that dies and comes back finds what it wrote down before."""
    found: list[str] = []

    async def count() -> None:
        path = host.disk.path / "count"
        found.append(path.read_text() if path.exists() else "0")
        path.write_text(str(int(found[-1]) + 1))
        await anyio.sleep_forever()

    async with Network() as net:
        host = net.host("node2")
        host.start(count)
        for _ in range(2):
            await settle()
            host.kill()
            host.restart()
        await settle()
    assert found == ["0", "1", "2"]


def test_power_cut_tears_a_file(backend: str) -> None:
    """What was appended and not synced is kept, lost, or kept in part; what was synced is kept."""

    async def log(seed: int) -> str:
        async with Network(seed=seed) as net:
            host = net.host("node2")
            path = host.disk.path / "log"
            path.write_text("synced,")
            host.disk.sync()
            with path.open("a") as file:
                file.write("not")
            host.kill(silent=True)
            return path.read_text()

    found = {run(log, seed, backend=backend) for seed in range(40)}
    assert found == {"synced,", "synced,n", "synced,no", "synced,not"}


def test_unseeded_random_repeats(backend: str) -> None:
    """What the code under test draws is drawn from the network's seed, and differs by the seed."""

    async def drawn(seed: int) -> float:
        async with Network(seed=seed):
            return random.random()  # noqa: S311 - the subject

    before = random.getstate()
    assert run(drawn, 1, backend=backend) == run(drawn, 1, backend=backend)
    assert run(drawn, 1, backend=backend) != run(drawn, 2, backend=backend)
    assert random.getstate() == before


async def test_to_thread_takes_no_time() -> None:
    """A worker thread runs, for real, and no virtual time passes."""
    async with Network(latency=1):
        with anyio.fail_after(0.5):
            assert await to_thread.run_sync(sum, [1, 2, 3]) == 6
    assert anyio.current_time() == 0


async def test_backpressure() -> None:
    """A sender waits while its peer does not read, and goes on when it does."""
    size = 8 << 20
    sent = anyio.Event()

    async def serve() -> None:
        async def send(stream: SocketStream) -> None:
            async with stream:
                await stream.send(bytes(size))
                sent.set()

        await (await anyio.create_tcp_listener(local_port=80)).serve(send)

    async with Network(latency=0.01) as net:
        net.host("server").start(serve)
        await settle()
        async with await anyio.connect_tcp("server", 80) as stream:
            await anyio.sleep(60)
            assert not sent.is_set()
            assert sum([len(data) async for data in stream]) == size
        assert sent.is_set()


# ---- seedloop ------------------------------------------------------------------------------------


async def retried(seed: int, *, remember: bool) -> list[bytes]:
    """Send a request until it is acknowledged; return what the server has applied."""
    applied: list[bytes] = []

    async def serve() -> None:
        async with await anyio.create_udp_socket(family=AF_INET, local_port=1) as socket:
            async for request, (host, port) in socket:
                if not (remember and request in applied):
                    applied.append(request)
                await socket.sendto(request, host, port)

    simulation = current_simulation()
    simulation.always(lambda: len(applied) == len(set(applied)))
    async with Network(latency=0.001, jitter=0.019, seed=seed) as net:
        net.host("server").start(serve)
        await settle()
        async with await anyio.create_connected_udp_socket("server", 1) as socket:
            acknowledged = False
            while not acknowledged:
                await socket.send(b"7")
                with anyio.move_on_after(0.03):
                    acknowledged = await socket.receive() == b"7"
        await anyio.sleep(1)
    return applied


def test_acknowledgement_that_is_late(backend: str) -> None:
    """A server without a memory applies a repeated request twice, under some seeds; again too."""

    def broken(seed: int, *, remember: bool) -> str | None:
        try:
            applied = run(partial(retried, seed, remember=remember), backend=backend)
        except InvariantError as error:
            return str(error).splitlines()[0]
        assert applied == [b"7"]
        return None

    found = [broken(seed, remember=False) for seed in range(100)]
    assert None in found
    seed, message = next((seed, message) for seed, message in enumerate(found) if message)
    assert broken(seed, remember=False) == message
    assert not any(broken(seed, remember=True) for seed in range(100))


async def elected(seed: int, *, votes_twice: bool) -> set[tuple[int, str]]:
    """Run three members for three seconds; return who led in which term."""
    nodes = cluster(3, votes_twice=votes_twice)
    current_simulation().always(lambda: one_leader_a_term(nodes))
    async with Network(latency=0.001, jitter=0.019, seed=seed) as net:
        for node in nodes:
            net.host(node.name).start(node.serve)
        await anyio.sleep(3)
    return set().union(*(node.seen for node in nodes))


def test_split_brain(backend: str) -> None:
    """Members that vote twice in a term elect two leaders, under some seeds; others never do."""

    def split(seed: int, *, votes_twice: bool) -> bool:
        try:
            led = run(partial(elected, seed, votes_twice=votes_twice), backend=backend)
        except InvariantError:
            return True
        assert led
        return False

    seed = next(seed for seed in range(100) if split(seed, votes_twice=True))
    assert split(seed, votes_twice=True)
    assert not any(split(seed, votes_twice=False) for seed in range(seed + 1))


# ---- simloom -------------------------------------------------------------------------------------


def test_counter_is_not_atomic(backend: str) -> None:
    """Three workers that add across a checkpoint lose updates, and the failure can be replayed."""

    @explore(backends=[backend], seeds=0, exhaustive=1)
    async def counts() -> None:
        value = 0

        async def work() -> None:
            nonlocal value
            for _ in range(3):
                current = value
                await checkpoint()
                value = current + 1

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work)
        assert value == 9

    with pytest.raises(AssertionError) as lost:
        counts()
    assert f"pytest --mtaio-replay {backend}/tape=" in lost.value.__notes__[-1]


async def until(predicate: Callable[[], bool], timeout: float) -> None:
    """Wait until something is so, looking every tenth of a second."""
    with anyio.fail_after(timeout):
        while not predicate():  # noqa: ASYNC110 - nobody could set an event
            await anyio.sleep(0.1)


def leaders(nodes: list[Node]) -> list[str]:
    """Return who leads in the latest term."""
    term = max(node.term for node in nodes)
    return [node.name for node in nodes if node.leads and node.term == term]


@pytest.mark.parametrize("seed", range(5))
async def test_leader_after_partition_and_crash(sim: Simulation, seed: int) -> None:
    """Five members, two cut off, then one without power for a while: in the end one leads."""
    nodes = cluster(5)
    sim.always(lambda: one_leader_a_term(nodes))
    async with Network(latency=0.001, jitter=0.01, seed=seed) as net:
        hosts = [net.host(node.name) for node in nodes]
        for node, host in zip(nodes, hosts, strict=True):
            host.start(node.serve)
        fault = net.partition(hosts[:2], hosts[2:])
        await anyio.sleep(30)
        assert fault.struck > 0
        assert leaders(nodes[2:])
        net.heal()
        hosts[0].kill(silent=True)
        await anyio.sleep(1)
        hosts[0].restart()
        await until(lambda: len(leaders(nodes)) == 1, timeout=120)
    assert_quiescent(net)


def test_vote_that_is_forgotten(backend: str) -> None:
    """A member that loses its vote in a crash elects a second leader in one term."""

    async def crashes(seed: int, *, forgets: bool) -> None:
        nodes = cluster(3, forgets=forgets)
        current_simulation().always(lambda: one_leader_a_term(nodes))
        async with Network(latency=0.01, jitter=0.05, seed=seed) as net:
            for node in nodes:
                net.host(node.name).start(node.serve)
            for _ in range(20):
                await anyio.sleep(random.uniform(0.1, 0.4))  # noqa: S311 - of the network's seed
                host = net.host(random.choice(nodes).name)  # noqa: S311 - likewise
                host.kill(silent=True)
                host.restart()

    def split(seed: int, *, forgets: bool) -> bool:
        try:
            run(partial(crashes, seed, forgets=forgets), backend=backend)
        except InvariantError:
            return True
        return False

    seed = next(seed for seed in range(100) if split(seed, forgets=True))
    assert not any(split(seed, forgets=False) for seed in range(seed + 1))


def test_critical_section_is_proved(backend: str) -> None:
    """Every schedule of up to three delays keeps the lock's promise; without the lock, one not."""

    def section(lock: Callable[[], Any]) -> Callable[[], None]:
        @explore(backends=[backend], seeds=0, exhaustive=3)
        async def one_at_a_time(sim: Simulation) -> None:
            inside = 0
            sim.always(lambda: inside <= 1)
            held = lock()

            async def work() -> None:
                nonlocal inside
                async with held:
                    inside += 1
                    await checkpoint()
                    inside -= 1

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await checkpoint()
                group.start_soon(work)

        return one_at_a_time

    section(anyio.Lock)()
    with pytest.raises(InvariantError):
        section(partial(anyio.Semaphore, 2))()


def test_withdrawals_are_not_serializable(backend: str) -> None:
    """Write skew: two transactions read both accounts, and each takes from one of them."""

    @explore(backends=[backend], seeds=0, exhaustive=1)
    async def never_overdrawn() -> None:
        accounts = {"a": 50, "b": 50}

        async def withdraw(account: str) -> None:
            total = sum(accounts.values())
            await checkpoint()
            if total >= 100:
                accounts[account] -= 100

        async with anyio.create_task_group() as group:
            group.start_soon(withdraw, "a")
            await checkpoint()
            await checkpoint()
            group.start_soon(withdraw, "b")
        assert sum(accounts.values()) >= 0

    with pytest.raises(AssertionError):
        never_overdrawn()


async def read_after_write(seed: int) -> bytes:
    """Write 1 to a leader that has a follower; return what is then read from the follower."""
    value = dict.fromkeys(("leader", "follower"), b"0")

    async def ask(name: str, request: bytes) -> bytes:
        async with await anyio.connect_tcp(name, 80) as stream:
            await stream.send(request)
            return await stream.receive()

    async def serve(name: str) -> None:
        async def answer(stream: SocketStream) -> None:
            async with stream:
                request = await stream.receive()
                if request == b"?":
                    await stream.send(value[name])
                    return
                value[name] = request
                if name == "leader":  # it answers before its follower has it
                    replication.start_soon(ask, "follower", request)
                await stream.send(b"+")

        async with anyio.create_task_group() as replication:
            await (await anyio.create_tcp_listener(local_port=80)).serve(answer)

    async with Network(latency=0.001, jitter=0.05, seed=seed) as net:
        for name in value:
            net.host(name).start(serve, name)
        await settle()
        assert await ask("leader", b"1") == b"+"
        return await ask("follower", b"?")


def test_stale_read(backend: str) -> None:
    """A read that begins after a write has ended may still return the value before it."""
    assert {run(read_after_write, seed, backend=backend) for seed in range(30)} == {b"0", b"1"}


async def wait_for_as_it_was(awaitable: Awaitable[None], timeout: float) -> None:
    """Do what `asyncio.wait_for` did before Python 3.12: a cancellation is lost in one moment."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task = asyncio.ensure_future(awaitable)
    task.add_done_callback(wake)
    handle = loop.call_later(timeout, wake)
    try:
        try:
            await waiter
        except asyncio.CancelledError:
            if task.done():
                return task.result()  # the cancellation is forgotten
            task.cancel()
            raise
        if not task.done():
            task.cancel()
            raise TimeoutError
        return task.result()
    finally:
        handle.cancel()


@pytest.mark.parametrize("kind", ["then", "now"])
def test_wait_for_swallows_a_cancellation(kind: str) -> None:
    """CPython's bpo-42130: cancelled as its call ends, wait_for returned as if it had not been."""

    @explore(backends=["asyncio"])
    async def cancelled_or_not() -> None:
        went_on = False

        async def inner() -> None:
            await asyncio.sleep(0.01)

        async def outer() -> None:
            nonlocal went_on
            wait = asyncio.wait_for if kind == "now" else wait_for_as_it_was
            await wait(inner(), 0.02)
            await asyncio.sleep(0)
            went_on = True

        task = asyncio.create_task(outer())
        await asyncio.sleep(0.01)
        cancelled = task.cancel()
        await asyncio.wait([task])
        assert not (cancelled and went_on)

    if kind == "now" and sys.version_info >= (3, 12):
        cancelled_or_not()
    else:
        with pytest.raises(AssertionError):
            cancelled_or_not()


def test_aiohttp_over_tls() -> None:
    """A client and a server of aiohttp, over TLS, through a reset and a partition; and again."""
    aiohttp = pytest.importorskip("aiohttp")
    web = pytest.importorskip("aiohttp.web")
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    server, client = contexts()

    async def hello(_: Any) -> Any:
        return web.Response(text="hello")

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/", hello)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, port=443, ssl_context=server).start()
        await anyio.sleep_forever()

    async def ask(session: Any) -> str:
        url, timeout = "https://web/", aiohttp.ClientTimeout(5)
        options: Any = {"ssl": client, "server_hostname": "localhost", "timeout": timeout}
        async with session.get(url, **options) as answer:
            return str(await answer.text())

    async def main() -> list[tuple[str, float]]:
        async with Network(latency=0.05) as net, aiohttp.ClientSession() as session:
            net.host("web").start(serve)
            await settle()
            assert await ask(session) == "hello"
            net.reset("main", "web")
            assert await ask(session) == "hello"
            net.partition("main", "web")
            with pytest.raises(TimeoutError):
                await ask(session)
            net.heal()
            assert await ask(session) == "hello"
        return [(event.what, event.time) for event in net.trace if "bytes" not in event.what]

    assert run(main) == run(main)  # but for signatures, whose lengths differ


async def serve_redis() -> None:
    """Stand in for Redis: SET and GET, and OK for the rest."""
    values: dict[bytes, bytes] = {}

    async def answer(stream: SocketStream) -> None:
        async with stream:
            lines = BufferedByteReceiveStream(stream)
            while True:
                try:
                    count = int((await lines.receive_until(b"\r\n", 100))[1:])
                except (anyio.EndOfStream, anyio.IncompleteRead):
                    return
                words: list[bytes] = []
                for _ in range(count):
                    size = int((await lines.receive_until(b"\r\n", 100))[1:])
                    words.append((await lines.receive_exactly(size + 2))[:-2])
                if words[0] == b"GET":
                    value = values.get(words[1])
                    found = b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
                    await stream.send(found)
                else:
                    if words[0] == b"SET":
                        values[words[1]] = words[2]
                    await stream.send(b"+OK\r\n")

    await (await anyio.create_tcp_listener(local_port=6379)).serve(answer)


def test_redis_that_restarts() -> None:
    """redis-py against a server that is killed and comes back, without its values."""
    asyncio_ = pytest.importorskip("redis.asyncio")

    async def main() -> object:
        async with (
            Network(latency=0.01) as net,
            asyncio_.Redis(host="cache", protocol=2) as client,
        ):
            net.host("cache").start(serve_redis)
            await settle()
            assert await client.set("a", "1")
            assert await client.get("a") == b"1"
            net.host("cache").kill()
            net.host("cache").restart()
            await settle()
            assert await client.get("a") is None  # it has connected again by itself
        return net.trace

    assert run(main) == run(main)
