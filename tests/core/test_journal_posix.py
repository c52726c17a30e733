"""Journals and other processes, which may hold the file; those that are killed: tests/service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import Journal, TaskExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

assert sys.platform != "win32"


async def double(number: int) -> int:
    """Return something."""
    return 2 * number


def descriptors() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - no paths


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal is."""
    return tmp_path / "out.jsonl"


@pytest.fixture
def child() -> Iterator[list[int]]:
    """Return where to put the ids of processes, which are then killed."""
    children: list[int] = []
    yield children
    for each in children:
        os.kill(each, signal.SIGKILL)
        os.waitpid(each, 0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forks beside threads
async def test_forked_child_does_not_keep_the_file(path: Path, child: list[int]) -> None:
    """A file is free when the call has ended, whatever has been forked meanwhile."""

    async def fork(number: int) -> int:
        pid = os.fork()
        if not pid:
            try:
                time.sleep(60)  # noqa: ASYNC251 - another process
            finally:
                os._exit(1)
        child.append(pid)
        return number

    executor = TaskExecutor()
    assert await executor.map(fork, [1], journal=Journal(path)) == [1]
    assert await executor.map(double, [1, 2], journal=Journal(path)) == [1, 4]


async def test_other_process_that_has_the_file(path: Path) -> None:
    """The call is refused until that process has gone; nothing was changed."""
    path.write_bytes(b'{"key": 1, "val')  # noqa: ASYNC240 - a few bytes
    locking = (
        f"import fcntl,sys; f=open({str(path)!r}); fcntl.flock(f, 2); print(flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(  # noqa: ASYNC220, S603 - this Python
        [sys.executable, "-c", locking], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(RuntimeError, match=r"^the journal '.*' is in use by another call, or"):
            await TaskExecutor().map(double, [1], journal=Journal(path))
        assert path.read_bytes() == b'{"key": 1, "val'  # noqa: ASYNC240 - a few bytes
        other.kill()
    assert await TaskExecutor().map(double, [1], journal=Journal(path)) == [2]


async def test_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a call uses the file without: who shares it takes the risk."""

    def refuse(_fd: int, _how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert await TaskExecutor().map(double, [1], journal=Journal(path)) == [2]


async def test_no_file_descriptor_is_left(path: Path) -> None:
    """However a call ends, the file is closed."""

    async def hang(_: int) -> None:
        await anyio.sleep_forever()

    executor, journal = TaskExecutor(), Journal[Any](path)
    await executor.map(double, range(3), journal=journal)
    before = descriptors()
    with pytest.raises(TypeError):
        await executor.map(str, [None], journal=journal)
    with anyio.move_on_after(1):
        await executor.map(hang, [7], journal=journal)
    path.write_bytes(b"no journal\n")  # noqa: ASYNC240 - a few bytes
    with pytest.raises(ValueError, match="line 1 of"):
        await executor.map(double, [1], journal=journal)
    assert descriptors() == before
