"""Several workers under one supervisor: ``mtaio run --workers``, real processes and signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from http.client import HTTPSConnection
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest

from tests.app.certificates import LOCALHOST
from tests.service.client import Load, UnansweredError, get
from tests.service.harness import PATIENCE, Service, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

assert sys.platform != "win32"

RUN = ("run", "tests.service.several:app", "--workers", "2")

IMPATIENT = """
import sys
import mtaio.app._supervisor as supervisor
supervisor.SILENT = 3.0
from mtaio.__main__ import main
sys.exit(main())
"""
"""The command, for which a worker is silent after three seconds, and not after half a minute."""

ACTIVATED = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", int(os.environ["BIND"].rpartition(":")[2])))
os.dup2(server.fileno(), 3)
os.set_inheritable(3, True)
os.execv(sys.executable, [sys.executable, "-m", "mtaio", *sys.argv[1:]])
"""
"""What systemd does where it listens for a service."""


class Start(Protocol):
    """Start two workers and their supervisor; they are killed when the test is over."""

    def __call__(self, *command: str, loop: str = "asyncio", **options: str) -> Service:
        """Start Python with ``command``, and with variables of the environment."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the service and waits until all workers are ready."""
    with ExitStack() as stack:
        # Where the tests run under nohup, what they start would ignore SIGHUP, as it should.
        stack.callback(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL))

        def begin(*command: str, loop: str = "asyncio", **options: str) -> Service:
            options["MTAIO_LOG_FILE"] = str(tmp_path / "several-{worker}.log")
            words = command or ("-m", "mtaio", *RUN)
            service = Service("", loop, tmp_path, options, [*words, "--backend", loop])
            stack.enter_context(service)
            service.err.wait("all 2 workers are ready")
            return service

        yield begin


def pids(service: Service) -> list[int]:
    """Return the workers that were started, in their order."""
    return [int(found) for found in re.findall(r"has started: pid (\d+)", service.err.text)]


def has_ended(pid: int) -> bool:
    """Return whether a process is there no more, or only until somebody asks for its end."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def asking(service: Service) -> Iterator[tuple[set[str], list[Exception]]]:
    """Ask again and again on new connections; yield who answers, and what goes wrong."""
    who: set[str] = set()
    errors: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.02):  # or nothing is left of a small machine for a worker to start
            began = time.monotonic()
            try:
                who.add(get(service.address, "/pid").body.decode())
            except Exception as error:  # noqa: BLE001 - the test asserts that there was none
                # A client has 0.1 s for its request; on a busy machine this one may take longer.
                late = time.monotonic() - began > 0.1
                if not (late and isinstance(error, UnansweredError)):
                    errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    try:
        yield who, errors
    finally:
        stop.set()
        for each in threads:
            each.join(PATIENCE)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_one_life(start: Start, tmp_path: Path, loop: str) -> None:
    """
    Workers are restarted one after another, and stop together; no request is lost by that.

    systemd is told when all are ready, and when they stop.
    """
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(PATIENCE)
        service = start(loop=loop, NOTIFY_SOCKET=path, MTAIO_SHUTDOWN_TIMEOUT="30")
        said = [systemd.recv(1000).decode() for _ in range(3)]
        assert len(service.err.wait("mtaio.app [worker 2]: started in ")) == 1
        assert len(service.err.wait("several [worker 2]: one of 2 workers")) == 1
        assert said[1:] == ["STATUS=2 of 2 workers are ready", "READY=1"]
        with asking(service) as (who, errors):
            wait_until(lambda: len(who) == 2)
            service.send(signal.SIGHUP)
            wait_until(lambda: len(who) == 4)
        assert errors == []
        service.err.wait("has started", 4)
        assert who == {str(each) for each in pids(service)}
        wait_until(lambda: service.metric("mtaio_supervisor_ready") == 2)
        before = len(service.out.lines)  # one for each request
        last = Load(service.address, [f"/until-draining?{number}" for number in range(40)])
        last.start()
        wait_until(lambda: len(service.out.lines) == before + 40)
        assert service.stop() == 0
        last.join()
        assert (last.unanswered, last.broken) == ([], [])
        while not systemd.recv(1000).startswith(b"STOPPING=1"):
            pass
    assert service.seconds < 30
    assert "Traceback" not in service.err.text
    assert all(map(has_ended, pids(service)))


def test_killed_worker_and_killed_supervisor(start: Start) -> None:
    """A worker that is killed is followed by another; one whose supervisor is, stops in time."""
    service = start(MTAIO_SHUTDOWN_TIMEOUT="2")
    os.kill(pids(service)[0], signal.SIGKILL)
    service.err.wait("has started", 3)
    assert service.readiness() == 200
    wait_until(lambda: service.metric("mtaio_supervisor_ready") == 2)
    assert service.metric("mtaio_supervisor_died_total") == 1
    Load(service.address, ["/forever"], connections=1).start()
    service.out.wait("in flight")
    service.send(signal.SIGKILL)
    assert service.wait() == -signal.SIGKILL
    wait_until(lambda: all(map(has_ended, pids(service))))


def test_blocked_worker_and_second_signal(start: Start) -> None:
    """
    A worker whose loop does not answer is ended with its stacks, and another started.

    At a second signal all end at once, and the exit code is that of a process that it has ended.
    """
    service = start("-c", IMPATIENT, *RUN, MTAIO_SHUTDOWN_TIMEOUT="6")
    Load(service.address, ["/block"], connections=1).start()
    service.err.wait("has not answered for 3 s")
    service.err.wait('scenarios.py", line')
    service.err.wait("has started", 3)
    wait_until(lambda: service.metric("mtaio_supervisor_ready") == 2)
    Load(service.address, ["/forever"], connections=1).start()
    service.out.wait("in flight", 2)
    service.send()
    service.wait_readiness(503)
    time.sleep(0.4)
    assert service.stop() == 128 + signal.SIGTERM


def test_start_that_hangs(start: Start, tmp_path: Path) -> None:
    """
    A renewed worker that hangs in its start is killed in the end; the other goes on serving.

    At the next SIGHUP, when the cause is gone, both are renewed.
    """
    hang = tmp_path / "hang"
    service = start(HANG=str(hang), MTAIO_START_TIMEOUT="15")
    with asking(service) as (who, errors):
        hang.touch()
        service.send(signal.SIGHUP)
        service.err.wait("has started", 3)
        service.err.wait("is not ready after 15 s (MTAIO_START_TIMEOUT): ending it")
        service.err.wait("worker 1 cannot start: the others stay as they are")
        assert has_ended(pids(service)[2])
        hang.unlink()
        service.send(signal.SIGHUP)
        wait_until(lambda: service.metric("mtaio_supervisor_ready") == 2)
        service.err.wait("worker 2 has started", 2)
        wait_until(lambda: service.metric("mtaio_supervisor_ready") == 2)
        wait_until(lambda: {str(each) for each in pids(service)[-2:]} <= who)
    assert errors == []
    assert service.stop() == 0


def test_inherited_socket_with_tls_and_the_time_is_over(start: Start) -> None:
    """The workers share a socket that systemd has bound; one that does not end makes it 70."""
    options = ("--bind", "fd://3", f"--certfile={LOCALHOST}")
    service = start("-c", ACTIVATED, *RUN, *options, MTAIO_SHUTDOWN_TIMEOUT="1")
    trusting = ssl.create_default_context(cafile=LOCALHOST)
    trusting.check_hostname = False
    connection = HTTPSConnection(service.address, context=trusting, timeout=PATIENCE)
    connection.request("GET", "/pid")
    assert int(connection.getresponse().read()) in pids(service)
    connection.request("GET", "/stubborn")
    service.out.wait("in flight", 2)
    assert service.stop() == 70
    connection.close()
