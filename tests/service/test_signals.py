"""What a service does at a signal, and what is done with one that does not end."""

from __future__ import annotations

import signal
import socket
import sys
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from tests.service.client import Load
from tests.service.harness import LATE, PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.conftest import Start

AGAIN = 0.4
"""Seconds after which another signal is no longer taken for the same one, sent twice."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_idle_service_ends_at_once(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """A service with nothing in flight ends at once, with 0; systemd is told when."""
    if sys.platform == "win32":
        return
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(PATIENCE)
        service = start("requests", NOTIFY_SOCKET=path, MTAIO_SHUTDOWN_TIMEOUT="60")
        assert systemd.recv(1000) == b"READY=1"
        assert service.readiness() == 200
        assert service.stop(number) == 0
        assert systemd.recv(1000).startswith(b"STOPPING=1")
    assert service.out.lines == ["opened", "closed"]
    assert service.seconds < 60 / 5
    assert "Traceback" not in service.err.text


def test_requests_longer_than_the_total(start: Start) -> None:
    """Requests that would take longer are cancelled and counted; the exit is in time."""
    service = start("requests", MTAIO_SHUTDOWN_TIMEOUT="5").wait_readiness(200)
    idle = HTTPConnection(service.address)  # which its client keeps open
    idle.request("GET", "/pid")
    assert idle.getresponse().read() == str(service.pid).encode()
    paths = [f"/forever?{number}" for number in range(3)]
    load = Load(service.address, paths, connections=3).start()
    service.out.wait("in flight", 4)
    assert service.stop() == 0
    assert 5 / 2 < service.seconds < 5 + LATE
    assert "requests: 3," in service.err.wait("cancelled because the time was up")[0]
    assert service.out.lines[-1] == "closed"
    load.join()
    assert load.broken == []
    assert [answer.status for answer in load.answers.values()] == [503, 503, 503]
    idle.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_second_signal_ends_at_once(start: Start, number: signal.Signals) -> None:
    """A second signal ends the service without waiting any longer, with 128 and its number."""
    service = start("requests", MTAIO_SHUTDOWN_TIMEOUT="60").wait_readiness(200)
    Load(service.address, ["/forever"], connections=1).start()
    service.out.wait("in flight")
    service.send(number)
    service.wait_readiness(503)
    time.sleep(AGAIN)
    assert service.stop(number) == 128 + number
    assert service.seconds < 60 / 2
    assert "was received again" in service.log_file.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["/block", "/stubborn"])
def test_service_that_does_not_end(start: Start, path: str) -> None:
    """A blocked loop, and a task that cannot be cancelled: 70 in time, with all stacks."""
    service = start("requests", MTAIO_SHUTDOWN_TIMEOUT="1").wait_readiness(200)
    Load(service.address, [path], connections=1).start()
    service.out.wait("in flight")
    if path == "/block":  # a signal just before the system call would not interrupt it
        service.err.wait("the event loop has not answered")
    assert service.stop() == 70
    assert 0.9 < service.seconds < 1 + LATE
    assert "(most recent call first)" in service.err.text
    if path == "/block":
        assert 'scenarios.py", line' in service.err.text
    assert "not stopped 1 s after" in service.log_file.read_text(encoding="utf-8")
