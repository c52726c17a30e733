"""In real time, on every event loop: probes are answered by a thread, whatever the loop does."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from mtaio._internal import loops
from mtaio._internal.gil import has_gil
from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor, _endpoints, _task_reader
from mtaio.monitoring._task_reader import TaskReader

HERE = "127.0.0.1:0"


def get(address: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Ask for ``path``, and wait for the answer in this thread, an event loop or not."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


async def ask(address: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Ask for ``path``, and let the event loop run meanwhile."""
    return await to_thread.run_sync(lambda: get(address, path, **headers))


def is_open(address: str) -> bool:
    """Return whether anything listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=20).close()
    except OSError:
        return False
    return True


async def test_answers() -> None:
    """Every path is answered, by the address that was taken."""
    health = HealthRegistry()
    health.add("always", lambda: True)
    async with (
        ResourceMonitor(name="shop") as monitor,
        Probes(monitor, health, bind=HERE) as probes,
    ):
        for path in ("/livez", "/readyz", "/startupz"):
            assert await ask(probes.address, path) == (200, b"ok\n")
        code, body = await ask(probes.address, "/stats?points=5")
        assert (code, json.loads(body)["name"]) == (200, "shop")
        code, body = await ask(probes.address, "/metrics")
        assert code == 200
        assert b"mtaio_monitor_samples_total" in body
        assert (await ask(probes.address, "/"))[1].startswith(b"<!doctype html>")
        assert (await ask(probes.address, "/nothing"))[0] == 404
        assert probes.statistics().requests == 7
        assert probes.statistics().peak >= 1
        assert probes.statistics().max_connections == 100


async def test_blocked_loop() -> None:
    """While the loop stands still the process is alive and shows its figures, and is not ready."""
    health = HealthRegistry()
    health.add("always", lambda: None)
    async with ResourceMonitor() as monitor, Probes(monitor, health, bind=HERE) as probes:
        assert await ask(probes.address, "/readyz") == (200, b"ok\n")
        # From here on this very thread, which is the loop's, waits for the answers.
        assert get(probes.address, "/livez") == (200, b"ok\n")
        assert get(probes.address, "/readyz") == (503, b"unavailable\n")
        assert get(probes.address, "/metrics")[0] == 200
        code, body = get(probes.address, "/stats")
        assert (code, json.loads(body)["health"]["ready"]) == (200, True)
        assert json.loads(body)["stall"]["seconds"] > 1
        # And from here on it runs again.
        assert await ask(probes.address, "/readyz") == (200, b"ok\n")


async def names_of(address: str, *, blocked: bool = False) -> tuple[set[str | None], bool]:
    """Return the names of the tasks, and whether they were read in their loop."""
    answer = (
        get(address, "/tasks?format=json") if blocked else await ask(address, "/tasks?format=json")
    )
    assert answer[0] == 200
    shown = json.loads(answer[1])
    return {line["name"] for line in shown["lines"]}, shown["complete"]


async def test_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are read in their loop if it answers and has few of them, else in a thread."""
    async with (
        ResourceMonitor() as monitor,
        Probes(monitor, bind=HERE) as probes,
        anyio.create_task_group() as group,
    ):
        group.start_soon(anyio.sleep_forever, name="sleeper")
        names, complete = await names_of(probes.address)
        assert "sleeper" in names
        assert complete
        for _ in range(2):  # the second finds that the first has asked the loop already
            names, complete = await names_of(probes.address, blocked=True)
            assert "sleeper" in names or not has_gil()
            assert not complete
        while not (await names_of(probes.address))[1]:
            pass  # the loop has not come yet to what it was asked while it was blocked
        monkeypatch.setattr(_task_reader, "_MOST_IN_LOOP", 0)
        names, complete = await names_of(probes.address)
        assert "sleeper" in names
        assert complete is not has_gil()
        group.cancel_scope.cancel()


async def test_tasks_of_this_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop with many tasks has a thread read them; what goes wrong there is raised here."""

    def fail(_: object) -> None:
        raise LookupError("no tree")

    reader = TaskReader(loops.current_loop())
    assert (await reader.read(lambda tree: tree)).complete
    monkeypatch.setattr(_task_reader, "has_gil", lambda: True)
    monkeypatch.setattr(_task_reader, "_MOST_IN_LOOP", 0)
    assert not (await reader.read(lambda tree: tree)).complete
    with pytest.raises(LookupError, match=r"^no tree"):
        await reader.read(fail)


async def test_tasks_that_cannot_be_read_in_their_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while they are read in the loop does no harm to it: a thread reads them."""

    def fail(_: object) -> None:
        raise LookupError

    monkeypatch.setattr(_task_reader, "read", fail)
    async with ResourceMonitor() as monitor, Probes(monitor, bind=HERE) as probes:
        assert not (await names_of(probes.address))[1]


def test_tasks_of_a_loop_that_is_over(anyio_backend: Any) -> None:
    """It has none."""

    async def make() -> TaskReader:
        return TaskReader(loops.current_loop())

    async def look() -> int:
        return (await reader.read(lambda tree: tree)).count

    name, options = anyio_backend
    reader = anyio.run(make, backend=name, backend_options=options)
    assert anyio.run(look, backend=name, backend_options=options) == 0


async def test_blocked_loop_with_live_checks() -> None:
    """What live checks have shown last counts while they cannot be run."""
    health = HealthRegistry()
    answers = [True]
    health.add("live", lambda: answers[-1], kind="live", ttl=0, failure_threshold=1)
    async with ResourceMonitor() as monitor, Probes(monitor, health, bind=HERE) as probes:
        assert get(probes.address, "/livez")[0] == 200
        assert (await health.report()).live
        assert get(probes.address, "/livez")[0] == 200
        answers.append(False)
        assert not (await health.report()).live
        assert get(probes.address, "/livez")[0] == 503


async def test_check_blocks_its_thread() -> None:
    """A check that hangs makes the service not ready, and hangs no answer."""
    health = HealthRegistry()
    go_on = threading.Event()
    health.add("hangs", go_on.wait, timeout=0.1)
    async with ResourceMonitor() as monitor, Probes(monitor, health, bind=HERE) as probes:
        try:
            assert (await ask(probes.address, "/readyz"))[0] == 503
            assert (await ask(probes.address, "/livez"))[0] == 200
        finally:
            go_on.set()


async def test_slow_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that takes longer than a probe waits, two seconds as a rule, is not waited for."""
    assert _endpoints._WAIT_READY == 2
    monkeypatch.setattr(_endpoints, "_WAIT_READY", 0.2)
    health = HealthRegistry()

    async def slow() -> None:
        await anyio.sleep(4)

    health.add("slow", slow, timeout=10)
    async with ResourceMonitor() as monitor, Probes(monitor, health, bind=HERE) as probes:
        started = time.monotonic()
        assert (await ask(probes.address, "/readyz"))[0] == 503
        assert time.monotonic() - started < 4


async def test_many_wait_for_one_report() -> None:
    """Fifty probes at once share one run of the checks."""
    health = HealthRegistry()
    runs: list[int] = []

    async def slow() -> None:
        runs.append(1)
        await anyio.sleep(0.5)

    health.add("slow", slow, timeout=5, ttl=0)
    async with ResourceMonitor() as monitor, Probes(monitor, health, bind=HERE) as probes:
        codes: list[int] = []

        async def probe() -> None:
            host, _, port = probes.address.rpartition(":")
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
                codes.append(int((await stream.receive())[9:12]))

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(probe)
    assert codes == [200] * 50
    assert 1 <= len(runs) <= 5


async def test_checks_run_in_the_loop() -> None:
    """Checks run in the loop and in the context of start()."""
    variable: ContextVar[str] = ContextVar("variable")
    health = HealthRegistry()
    seen: list[Any] = []

    async def look() -> None:
        seen.append((threading.get_ident(), variable.get()))

    health.add("look", look)
    variable.set("value")
    async with ResourceMonitor() as monitor, Probes(monitor, health, bind=HERE) as probes:
        variable.set("another")
        assert (await ask(probes.address, "/readyz"))[0] == 200
    assert seen == [(threading.get_ident(), "value")]


async def test_start_and_stop() -> None:
    """It may be started again and stopped twice, in any tasks; the port is free at once."""
    async with ResourceMonitor() as monitor:
        probes = Probes(monitor, bind=HERE)
        assert not probes.running
        assert probes.address == HERE
        await probes.stop()
        async with anyio.create_task_group() as group:
            group.start_soon(probes.start)
        await probes.start()
        address = probes.address
        assert probes.running
        assert repr(probes) == f"<Probes at {address}, running>"
        async with anyio.create_task_group() as group:
            group.start_soon(probes.stop)
            group.start_soon(probes.stop)
        assert not is_open(address)
        assert not probes.running
        assert probes.statistics().requests == 0
        again = Probes(monitor, bind=address)
        for _ in range(5):
            async with again:
                assert again.address == address
                assert (await ask(address, "/livez"))[0] == 200


async def test_stopped_at_once() -> None:
    """It may be stopped before its thread has come up."""
    before = threading.active_count()
    async with ResourceMonitor() as monitor:
        for _ in range(20):
            async with Probes(monitor, bind=HERE):
                pass
    assert threading.active_count() <= before + 1  # anyio keeps a thread that it may use again


async def test_stopped_before_its_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is told to end before it has a scope to be cancelled by ends all the same."""
    begin, anyio_run = threading.Event(), anyio.run

    def run_late(*args: Any, **options: Any) -> object:
        assert begin.wait(20)
        return anyio_run(*args, **options)

    monkeypatch.setattr(anyio, "run", run_late)
    async with ResourceMonitor() as monitor:
        probes = Probes(monitor, bind=HERE)
        await probes.start()
        async with anyio.create_task_group() as group:
            group.start_soon(probes.stop)
            await checkpoint()
            begin.set()
        assert not probes.running


async def test_stop_closes_connections() -> None:
    """A client that is connected, or waits, is not waited for."""
    async with ResourceMonitor() as monitor, anyio.create_task_group() as group:
        health = HealthRegistry()
        health.add("slow", anyio.sleep_forever, timeout=1e9)
        probes = Probes(monitor, health, bind=HERE)
        await probes.start()
        host, _, port = probes.address.rpartition(":")
        idle = await anyio.connect_tcp(host, int(port))
        waits = await anyio.connect_tcp(host, int(port))
        await waits.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        while probes.statistics().requests < 1:  # noqa: ASYNC110 - the thread's, without an event
            await anyio.sleep(0.01)
        await probes.stop()
        for stream in (idle, waits):
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            await stream.aclose()
        group.cancel_scope.cancel()


async def test_cancelled_start_and_stop() -> None:
    """A cancelled start has not started, a cancelled stop has stopped."""
    async with ResourceMonitor() as monitor:
        probes = Probes(monitor, bind=HERE)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await probes.start()
        assert not probes.running
        await probes.start()
        address = probes.address
        with anyio.CancelScope() as scope:
            scope.cancel()
            await probes.stop()
        assert scope.cancelled_caught
        assert not is_open(address)
        with anyio.CancelScope() as scope:
            async with probes:
                address = probes.address
                scope.cancel()
                await anyio.sleep_forever()
        assert not is_open(address)


async def test_stopped_twice_at_once() -> None:
    """Whoever stops it finds it stopped, also where another task had begun to."""
    stopped: list[bool] = []
    async with ResourceMonitor() as monitor:
        probes = Probes(monitor, bind=HERE)
        await probes.start()
        address = probes.address

        async def stop() -> None:
            await probes.stop()
            stopped.append(is_open(address))

        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            group.start_soon(stop)
    assert stopped == [False, False]


async def test_started_while_it_stops() -> None:
    """A start waits for a stop in progress, and then has the same address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with ResourceMonitor() as monitor, Probes(monitor, bind=address) as probes:
        for _ in range(5):
            async with anyio.create_task_group() as group:
                group.start_soon(probes.stop)
                await checkpoint()
                await probes.start()
                assert probes.running
        assert await ask(address, "/livez") == (200, b"ok\n")
    assert not is_open(address)


async def test_no_thread_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there can be no more threads it holds no address, and may be started later."""

    def refuse(_: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with ResourceMonitor() as monitor:
        probes = Probes(monitor, bind=address)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match=r"^can't start new thread$") as refused:
                await probes.start()
        assert refused.traceback  # which holds what was made so far
        assert not probes.running
        assert not is_open(address)
        async with probes:
            assert (await ask(address, "/livez"))[0] == 200


def test_all_tasks_cancelled_natively() -> None:
    """As some programs do before they end: that stops it, at whatever moment it comes."""

    async def main(turns: int) -> None:
        async with ResourceMonitor() as monitor, Probes(monitor, bind=HERE) as probes:
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await probes.stop()
            assert not probes.running

    for turns in range(4):
        asyncio.run(main(turns))


async def test_address_in_use() -> None:
    """What is taken is an error of start(), with the address and what to do."""
    async with ResourceMonitor() as monitor, Probes(monitor, bind=HERE) as probes:
        other = Probes(monitor, bind=probes.address)
        with pytest.raises(OSError, match=f"cannot listen at {probes.address}: .*in use.* port 0"):
            await other.start()
        assert not other.running
        with pytest.raises(OSError, match=r"cannot listen at 192\.0\.2\.1:80: .* Choose"):
            await Probes(monitor, bind="192.0.2.1:80", token="a").start()  # noqa: S106 - of a test


async def test_monitor_does_not_run() -> None:
    """A monitor that does not run could not tell whether the loop answers."""
    probes = Probes(ResourceMonitor(), bind=HERE)
    with pytest.raises(RuntimeError, match=r"^cannot start <Probes at .*Start it first"):
        await probes.start()


async def test_monitor_was_stopped() -> None:
    """Without the monitor nobody knows whether the loop answers."""
    monitor = ResourceMonitor()
    await monitor.start()
    async with Probes(monitor, bind=HERE) as probes:
        await monitor.stop()
        assert (await ask(probes.address, "/livez"))[0] == 503
        assert (await ask(probes.address, "/readyz"))[0] == 200


def has_ipv6() -> bool:
    """Return whether this machine has an IPv6 loopback address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")


@needs_ipv6
async def test_ipv6() -> None:
    """An IPv6 address is served, and needs no token if it is the loopback address."""
    async with ResourceMonitor() as monitor, Probes(monitor, bind="[::1]:0") as probes:
        assert probes.address.startswith("[::1]:")
        assert (await ask(probes.address, "/stats"))[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("[::]", marks=needs_ipv6)])  # noqa: S104 - with a token
async def test_all_addresses(host: str) -> None:
    """Bound to all addresses, IPv4 clients are served, and have to send the token."""
    async with (
        ResourceMonitor() as monitor,
        Probes(monitor, bind=f"{host}:0", token="päss") as probes,  # noqa: S106 - of a test
    ):
        address = probes.address.replace(host, "127.0.0.1")
        assert (await ask(address, "/livez"))[0] == 200
        assert (await ask(address, "/stats"))[0] == 401
        token = "Bearer päss".encode().decode("latin-1")
        assert (await ask(address, "/stats", Authorization=token))[0] == 200


async def test_another_loop() -> None:
    """Two loops at once cannot have it; it may be stopped in another loop."""
    async with ResourceMonitor() as monitor, Probes(monitor, bind=HERE) as probes:
        with pytest.raises(RuntimeError, match=r"^<Probes at .* Only one loop"):
            await to_thread.run_sync(anyio.run, probes.start)
        await to_thread.run_sync(anyio.run, probes.stop)
        assert not probes.running


def test_ends_with_its_loop(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Never stopped, it ends with its event loop, and another loop may start it."""
    monitor = ResourceMonitor()
    probes = Probes(monitor, bind=HERE)
    addresses: list[str] = []

    async def main() -> None:
        await monitor.start()
        await probes.start()
        assert (await ask(probes.address, "/readyz"))[0] == 200
        addresses.append(probes.address)

    name, options = anyio_backend
    for _ in range(3):
        anyio.run(main, backend=name, backend_options=options)
    until = time.monotonic() + 30
    while probes.running or any(map(is_open, addresses)):
        assert time.monotonic() < until
        time.sleep(0.01)


REFUSED: dict[str, tuple[Any, str]] = {
    "a number": (8000, "is an int, not a str"),
    "no port": ("127.0.0.1", "does not end in a port"),
    "no host": (":8000", "has no host"),
    "empty": ("", "does not end in a port"),
    "a name": ("example.com:80", "does not begin with an IP address or localhost"),
    "a URL": ("http://127.0.0.1:80", "does not begin with an IP address or localhost"),
    "a word": ("127.0.0.1:http", "does not end in a port"),
    "port too great": ("127.0.0.1:65536", "does not end in a port"),
    "negative port": ("127.0.0.1:-1", "does not end in a port"),
    "other digits": ("127.0.0.1:٨", "does not end in a port"),
    "no brackets": ("::1:8000", "has misplaced brackets"),
    "brackets": ("[127.0.0.1]:80", "has misplaced brackets"),
    "open": ("0.0.0.0:80", "can be reached from other machines, and there is no token"),
    "open, IPv6": ("[::]:80", "can be reached from other machines, and there is no token"),
    "a network's": ("10.1.2.3:80", "can be reached from other machines, and there is no token"),
}


@pytest.mark.parametrize(("bind", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_binds(bind: Any, reason: str) -> None:
    """An address that is none, or is open to all without a token, is refused at once."""
    error = ValueError if isinstance(bind, str) else TypeError
    with pytest.raises(error, match=r"^bind=") as caught:
        Probes(ResourceMonitor(), bind=bind)
    assert reason in str(caught.value)


def test_accepted_binds() -> None:
    """Loopback addresses need no token, and a token opens all others; it is not shown."""
    for bind, address in {
        "localhost:8000": "127.0.0.1:8000",
        "LOCALHOST:0": "127.0.0.1:0",
        "127.0.0.2:80": "127.0.0.2:80",
        "[::1]:80": "[::1]:80",
    }.items():
        assert Probes(ResourceMonitor(), bind=bind).address == address
    probes = Probes(ResourceMonitor(), bind="0.0.0.0:80", token="secret")  # noqa: S106 - of a test
    assert repr(probes) == "<Probes at 0.0.0.0:80, not running>"
