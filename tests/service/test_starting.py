"""How a start ends that does not get far."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

from tests.service.harness import LATE, TOTAL

if TYPE_CHECKING:
    from tests.service.conftest import Start


def test_signal_during_start(start: Start) -> None:
    """A signal ends a start that hangs, and what was opened is closed."""
    service = start("slow_start")
    service.out.wait("starting")
    assert service.readiness() == 503
    assert service.stop(signal.SIGTERM) == 0
    assert service.out.lines == ["opened", "starting", "closed"]
    assert service.seconds < TOTAL + LATE
    assert "Traceback" not in service.err.text


def test_failing_start(start: Start) -> None:
    """A start that fails ends with 3, says why, and closes what was opened."""
    service = start("failing_start")
    assert service.wait() == 3
    assert service.out.lines == ["opened", "closed"]
    assert "no queue at 10.0.0.7" in service.err.text
    assert any("no queue at 10.0.0.7" in line for line in service.log())


def test_address_in_use(start: Start) -> None:
    """An address that somebody else listens on ends the start with 3, and is named."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "{}:{}".format(*other.getsockname())
        service = start("requests", BIND=address)
        assert service.wait() == 3
    assert address in service.err.text
    assert [line.split()[2] for line in service.err.lines if address in line] == ["ERROR"]
    assert "Traceback" not in service.err.text
    assert service.out.lines == ["opened", "closed"]


def test_bad_configuration(start: Start) -> None:
    """A configuration that is wrong ends with 2, with a line for each mistake and no traceback."""
    service = start(
        "requests",
        MTAIO_MAX_WORKERS="many",
        MTAIO_LOG_LEVEL="LOUD",
        MTAIO_SHUTDOWN_TIMEOUT="-1",
    )
    assert service.wait() == 2
    for name in ("MTAIO_MAX_WORKERS", "MTAIO_LOG_LEVEL", "MTAIO_SHUTDOWN_TIMEOUT"):
        assert service.err.text.count(f"{name}=") == 1
    assert "Traceback" not in service.err.text
    assert service.out.lines == []
