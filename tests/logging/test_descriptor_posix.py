"""Paths that name a descriptor, such as ``/dev/stderr``."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

from mtaio.logging import AsyncFileHandler
from mtaio.logging._descriptor import ANOTHERS, descriptor
from tests.logging.tools import Logbook, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

assert sys.platform != "win32"

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it has no /proc")

CRASH = """
import logging

from mtaio.logging import configure

with configure(file="/dev/stderr", console=False):
    for number in range(30):
        logging.warning("record %d", number)
raise RuntimeError("the traceback comes after the records")
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return the two ends of a pipe."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("flags", [os.O_TRUNC, os.O_APPEND])
def test_standard_error_is_a_file(tmp_path: Path, flags: int) -> None:
    """With ``2> err.log`` records and the traceback are all there, one after the other."""
    script = tmp_path / "program.py"
    script.write_text(CRASH, encoding="utf-8")
    out = os.open(tmp_path / "err.log", os.O_WRONLY | os.O_CREAT | flags)
    done = subprocess.run(  # noqa: S603 - this very Python, with a program of the test's
        [sys.executable, str(script)], stderr=out, check=False, timeout=100, env=environment()
    )
    os.close(out)
    assert done.returncode == 1
    lines = (tmp_path / "err.log").read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines[:30]] == [str(n) for n in range(30)]
    assert lines[30].startswith("Traceback")
    assert lines[-1].startswith("RuntimeError: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["err.log", "program.py"]


def test_link_to_a_descriptor_is_never_moved(book: Logbook) -> None:
    """A link like ``/dev/stderr`` stays what it is, whatever size the file behind it has."""
    target = book.folder / "target"
    with target.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        link = book.folder / "stderr"
        link.symlink_to(f"/dev/fd/{file.fileno()}")
        handler = book.open(filename=link, mode="w", max_bytes=10, backup_count=2)
        for number in range(30):
            book.logger.warning("record %d", number)
            assert handler.flush()
        handler.close()
        os.write(file.fileno(), b"after\n")
        assert handler.statistics().rotations == 0
        assert link.is_symlink()
    assert book.lines(target) == ["before", *(f"record {n}" for n in range(30)), "after"]
    assert sorted(path.name for path in book.folder.iterdir()) == ["stderr", "target"]


def test_standard_output_is_a_socket(tmp_path: Path) -> None:
    """A socket, as systemd gives it, which cannot be opened by its path, is written to."""
    program = """
        import logging

        from mtaio.logging import AsyncFileHandler

        logger = logging.getLogger("shop")
        logger.addHandler(AsyncFileHandler("/dev/stdout"))
        for number in range(3000):
            logger.warning("record %d", number)
    """
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program), encoding="utf-8")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with subprocess.Popen(  # noqa: S603 - this very Python, with a program of the test's
            [sys.executable, str(script)], stdout=theirs.fileno(), env=environment()
        ) as child:
            theirs.close()
            with ours.makefile("rb") as file:
                lines = file.read().splitlines()
        assert child.returncode == 0
    assert lines == [b"record %d" % number for number in range(3000)]


def test_descriptor_that_does_not_block(
    book: Logbook, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where whoever shares the descriptor made it non-blocking, a full pipe is waited for."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    waits = threading.Event()
    real = select.poll

    def poll() -> select.poll:
        waits.set()
        return real()

    monkeypatch.setattr("mtaio.logging._descriptor.select.poll", poll)
    errors: list[Exception] = []
    handler = book.open(filename=f"/dev/fd/{writer}", on_error=errors.append)
    size = 300_000
    book.logger.warning("#" * size)  # the pipe holds less
    waits.wait()
    read = b""
    while len(read) <= size:
        read += os.read(reader, 1 << 16)
    assert handler.flush()
    assert read == b"#" * size + b"\n"
    assert errors == []
    assert not os.get_blocking(writer)


def test_each_opening_duplicates(book: Logbook, pipe: tuple[int, int]) -> None:
    """After ``close`` the descriptor is duplicated anew; the handler closes its own alone."""
    reader, writer = pipe
    handler = book.open(filename=f"/dev/fd/{writer}")
    for text in (b"one\n", b"two\n"):
        book.logger.warning(text.decode().strip())
        handler.close()
        assert os.read(reader, 100) == text
    assert fcntl.fcntl(writer, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


@LINUX
@pytest.mark.parametrize("path", ["/proc/self/fd/{}", "/proc/thread-self/fd/{}", "/dev/fd/{}"])
def test_spellings(book: Logbook, pipe: tuple[int, int], path: str) -> None:
    """All the paths by which a descriptor goes are known."""
    reader, writer = pipe
    path = path.format(writer)
    assert descriptor(path) == writer
    handler = AsyncFileHandler(path)
    handler.handle(book.logger.makeRecord("book", 30, "", 0, "here", (), None))
    handler.close()
    assert os.read(reader, 100) == b"here\n"


@LINUX
def test_descriptor_of_another_process(book: Logbook) -> None:
    """What is another's is opened by its path, appended to, and never moved."""
    target = book.folder / "target"
    with (
        target.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=file
        ) as child,
    ):
        path = f"/proc/{child.pid}/fd/1"
        assert descriptor(path) == ANOTHERS
        handler = book.open(filename=path, max_bytes=10, backup_count=2)
        for number in range(5):
            book.logger.warning("record %d", number)
            assert handler.flush()
        handler.close()
        assert handler.statistics().rotations == handler.statistics().write_errors == 0
        child.communicate(b"\n")
    assert book.lines(target) == [f"record {number}" for number in range(5)]


def test_paths_that_name_no_descriptor(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other files and links, rings of links too, are opened; devices of these names are known."""
    ring = book.folder / "ring"
    ring.symlink_to(ring)
    link = book.folder / "link"
    link.symlink_to("app.log")
    (book.folder / "3").touch()
    for name in ("3", "app.log", "link", "ring", "missing/3"):
        assert descriptor(str(book.folder / name)) is None
    with pytest.raises(OSError, match=r"Too many levels|ELOOP"):
        AsyncFileHandler(ring)

    def readlink(path: str) -> str:
        raise OSError(22, "no link", path)

    monkeypatch.setattr(os, "readlink", readlink)  # as systems do that have devices there
    assert descriptor("/dev/stderr") == 2


@pytest.mark.parametrize("mode", [None, os.O_RDONLY])
def test_descriptor_that_cannot_be_written(book: Logbook, mode: int | None) -> None:
    """One that is closed, or open for reading, is told at once, and what to do."""
    fd = os.open(book.folder, os.O_RDONLY)
    if mode is None:
        os.close(fd)
    path = f"/dev/fd/{fd}"
    with pytest.raises(OSError, match=rf"^\[Errno 9\] .*: '{path}'") as raised:
        AsyncFileHandler(path)
    (note,) = raised.value.__notes__
    assert note.endswith(f"{path!r} names a descriptor that is not open for writing; name a file.")
    if mode is not None:
        os.close(fd)


def test_exclusive_creation_of_a_descriptor(pipe: tuple[int, int]) -> None:
    """Mode "x" refuses what is there, as for any path."""
    with pytest.raises(FileExistsError):
        AsyncFileHandler(f"/dev/fd/{pipe[1]}", "x")
