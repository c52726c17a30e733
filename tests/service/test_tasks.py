"""A deadlock in the example service is found in one look, whatever its event loop is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.service.harness import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.conftest import Start

assert sys.platform != "win32"

FIRST_SCREEN = 24
"""Lines of a terminal."""

DEADLOCK = (
    "deadlock: 2 tasks wait for each other",
    "waits for slot of ConcurrencyLimiter 'invoices'",
    "held by transfer 2",
    "waits for slot of ConcurrencyLimiter 'stock'",
    "held by transfer 1",
)


def look(*arguments: str) -> str:
    """Return the first screen of ``mtaio tasks``."""
    done = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-m", "mtaio", "tasks", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return "\n".join(done.stdout.splitlines()[:FIRST_SCREEN])


def test_deadlock(start: Start, tmp_path: Path) -> None:
    """By its address, by its process, by SIGUSR1, while it is blocked, and at the exit by force."""
    go = tmp_path / "go"
    os.mkfifo(go)
    service = start(
        "deadlock", SHOP_UPSTREAM="http://127.0.0.1:9", MTAIO_SHUTDOWN_TIMEOUT="2", GO=str(go)
    )
    service.out.wait("deadlock")
    for target in (service.probes, str(service.pid)):
        screen = look(target)
        assert all(words in screen for words in DEADLOCK), screen
        assert "read from outside" not in screen
    service.send(signal.SIGUSR1)
    service.err.wait(DEADLOCK[0])
    go.write_text("go", encoding="utf-8")
    service.out.wait("blocked")
    screen = look(service.probes)
    assert all(words in screen for words in DEADLOCK), screen
    assert "read from outside" in screen
    service.send(signal.SIGUSR1)
    service.err.wait(DEADLOCK[0], 2)
    assert service.stop() == 70
    last = service.err.text.rpartition("[MainThread]")[2]
    assert all(words in last for words in DEADLOCK), last
