"""No line of the log is lost at the end, and a full disk ends nothing."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.service.harness import LATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.conftest import Start


def numbers(lines: list[str]) -> list[int]:
    """Return the numbers of the lines that were logged with one."""
    return [
        int(line.rpartition(" ")[2]) for line in lines if ": line " in line or "- line " in line
    ]


def test_every_line_of_a_busy_service(start: Start) -> None:
    """A service that is stopped while it logs without pause has each line in its file."""
    service = start("chatty", MTAIO_LOG_CONSOLE="0")
    service.out.wait("talking")
    assert service.stop() == 0
    logged = int(service.out.wait("lines")[0].split()[1])
    assert logged >= 1000
    assert numbers(service.log()) == list(range(logged))


@pytest.mark.parametrize("waits_for", ["closed", "nothing"])
def test_logging_as_the_guide_sets_it_up(start: Start, tmp_path: Path, waits_for: str) -> None:
    """
    Handlers that the user has attached are written at SIGTERM, to the last line.

    Also if the program then waits for ever, as a hand-written `main` may: asyncio's loop is ended,
    and where that cannot be, on trio, the process is.
    """
    path = tmp_path / "guide.log"
    service = start("guide", GUIDE_LOG=str(path), GUIDE_WAIT=waits_for, MTAIO_SHUTDOWN_TIMEOUT="1")
    service.out.wait("logged")
    assert service.stop() in ({0} if waits_for == "closed" else {0, 70})
    assert numbers(path.read_text(encoding="utf-8").splitlines()) == list(range(2000))


@contextmanager
def full(path: Path, kind: str) -> Iterator[Path]:
    """Yield the path of a log on a device without room."""
    if kind == "device":
        yield Path("/dev/full")
        return
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:  # noqa: S603 - a command written here
        pytest.skip("only root can mount a small file system")
    try:
        yield path / "service.log"
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)  # noqa: S603, S607 - as above


@pytest.mark.parametrize("kind", ["device", "disk"])
def test_full_disk(start: Start, tmp_path: Path, kind: str) -> None:
    """A service whose log finds no room goes on, says so, and ends in time."""
    folder = tmp_path / "small"
    folder.mkdir()
    with full(folder, kind) as log:
        service = start(
            "chatty", MTAIO_LOG_FILE=str(log), MTAIO_LOG_CONSOLE="0", MTAIO_SHUTDOWN_TIMEOUT="3"
        )
        service.wait_readiness(200)
        service.out.wait("talking")
        service.err.wait(os.strerror(28))
        assert service.readiness() == 200
        assert service.stop() == 0
    assert service.seconds < 3 + LATE
