"""Files that cannot be written, moved or found."""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mtaio.logging import AsyncFileHandler, _file, _queue, _reports, _shutdown, _writer
from mtaio.logging._file import RotatingFile
from tests.logging.tools import Disk, Logbook, environment, is_open, run, until

assert sys.platform != "win32"


# ---- a full disk ---------------------------------------------------------------------------------


LIMITED = """
import logging, resource, sys, time

from mtaio.logging import AsyncFileHandler

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
errors = []
handler = AsyncFileHandler("app.log", max_pending=500, keep_room=0, on_error=errors.append)
logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
for number in range(3000):
    logger.info("record number %d, of which there are too many", number)
    if number % 100 == 0:
        handler.flush(0.01)
while handler.statistics().write_errors < 3: time.sleep(0.001)
assert handler.statistics().pending == 500
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert handler.flush(20)
print(handler.statistics().dropped["INFO"], *errors)
"""


def test_limit_of_file_size(book: Logbook) -> None:
    """A file that may not grow is treated like a full disk, down to the byte."""
    done = run(LIMITED, book.folder)
    assert (done.returncode, done.stderr) == (0, "")
    dropped, _, printed = done.stdout.partition(" ")
    assert printed == "[Errno 27] File too large\n"
    *lines, notice = book.lines()
    assert notice == f"dropped {dropped} records, because the queue was full (INFO: {dropped})"
    assert lines == [
        f"record number {number}, of which there are too many"
        for number in range(3000 - int(dropped))
    ]


def test_closing_on_a_full_disk_counts_what_is_lost(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When ``close`` returns, what was given up is counted; logging goes on after."""
    monkeypatch.setattr(_queue, "BATCH", 4)
    monkeypatch.setattr(_writer, "_FIRST_RETRY", 1000)  # closing does not wait for that
    monkeypatch.setattr(_shutdown, "PATIENCE", 0.05)
    errors: list[Exception] = []
    disk.full = math.inf
    handler = book.open(on_error=errors.append)
    for number in range(10):
        book.logger.info("%d", number)
    assert not handler.flush(0.01)
    assert (handler.statistics().lost, handler.statistics().pending) == (0, 10)
    pending = handler._writer.request_flush()
    handler.close()
    assert (handler.statistics().lost, handler.statistics().pending) == (10, 0)
    assert pending.wait(20)
    assert not pending.written
    assert not book.threads()
    disk.full = 0
    book.logger.info("after")
    assert handler.flush()
    assert book.lines() == ["after"]
    assert [str(error) for error in errors] == ["[Errno 28] No space left on device"]
    assert handler.statistics().write_errors >= 2


FULL_DEVICE = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")


@FULL_DEVICE
def test_full_device(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is always full, what is lost is counted at the end of each ``close``."""
    monkeypatch.setattr(_shutdown, "PATIENCE", 0.05)
    handler = book.open(filename="/dev/full", max_pending=600, keep_room=0, on_error=lambda _: None)
    for round_ in range(1, 3):
        for number in range(700):
            book.logger.info("%d", number)
        assert not handler.flush(0.01)
        handler.close()
        figures = handler.statistics()
        assert (figures.lost, figures.pending, figures.written) == (600 * round_, 0, 0)
        assert figures.dropped == {"INFO": 100 * round_}


@pytest.mark.parametrize("loud", ["loud", ""])
def test_callback_that_fails_costs_no_record(
    book: Logbook,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    loud: str,
) -> None:
    """An ``on_error`` that raises is reported as logging reports, and the record is written."""
    monkeypatch.setattr(logging, "raiseExceptions", bool(loud))

    def on_error(error: Exception) -> None:
        raise LookupError(str(error))

    folder = book.folder / "later"
    handler = book.open(filename=folder / "app.log", delay=True, on_error=on_error)
    book.logger.info("early")
    until(lambda: handler.statistics().write_errors)
    folder.mkdir()
    assert handler.flush(20)
    assert book.lines(folder / "app.log") == ["early"]
    printed = capsys.readouterr().err
    assert ("LookupError: [Errno 2] No such file" in printed) == bool(loud)
    assert bool(printed) == bool(loud)


def test_nothing_is_printed_where_logging_prints_nothing(
    book: Logbook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``logging.raiseExceptions`` off nothing is printed."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    folder = book.folder / "later"
    handler = book.open(filename=folder / "app.log", delay=True)
    book.logger.info("early")
    until(lambda: handler.statistics().write_errors)
    folder.mkdir()
    assert handler.flush(20)
    assert capsys.readouterr().err == ""


def test_error_on_closing_is_reported(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that complains at ``close`` is reported, and the handler is closed."""
    errors: list[Exception] = []
    handler = book.open(on_error=errors.append)
    book.logger.info("text")
    assert handler.flush()
    real = os.close

    def close(fd: int) -> None:
        real(fd)
        raise OSError(errno.EDQUOT, "over quota")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        handler.close()
    assert [str(error) for error in errors] == [f"[Errno {errno.EDQUOT}] over quota"]
    assert not book.threads()


def test_each_kind_of_error_is_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are of one kind if their number is the same, or their class if they have none."""
    moment = 100.0
    monkeypatch.setattr(_reports, "monotonic", lambda: moment)
    printed: list[Exception] = []
    report = _reports.ErrorReports("app.log", printed.append)
    full, again, broken = (
        OSError(number, "") for number in (errno.ENOSPC, errno.ENOSPC, errno.EIO)
    )
    odd = LookupError("no such codec")
    for error in (full, again, broken, odd, broken, odd):
        report(error)
    assert printed == [full, broken, odd]
    moment += 59.9
    report(again)
    assert printed == [full, broken, odd]
    moment += 0.2
    report(again)
    report(full)
    assert printed == [full, broken, odd, again]


def test_broken_standard_error(book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an error cannot even be reported, the records are written all the same."""
    disk.full = 1
    broken = (book.folder / "broken").open("w")
    broken.close()
    handler = book.open()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", broken)
        book.logger.info("text")
        assert handler.flush(20)
    assert book.lines() == ["text"]


@pytest.mark.parametrize("error", [errno.EBADF, errno.ESTALE])
def test_file_that_is_gone_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """A descriptor that others closed, or that is stale, is forgotten, and the path opened."""
    file = make(tmp_path, [], max_bytes=0)
    file.write([b"before\n"])
    batch = [b"after\n"]

    def write(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match=rf"^\[Errno {error}\]"):
            file.write(batch)
    assert not file.is_open
    file.write(batch)
    file.close()
    assert (tmp_path / "app.log").read_bytes() == b"before\nafter\n"


@pytest.mark.parametrize("moved", ["moved", ""])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_record_that_is_given_up_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, moved: str
) -> None:
    """The next record in the same file has a line of its own."""
    path = tmp_path / "app.log"
    file = make(tmp_path, [], max_bytes=0, encoding=encoding)
    file.write(["before\n".encode(encoding)])
    coming = [6, 0, 0, 0]
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if coming and (taken := coming.pop(0)):
            return real(fd, bytes(data[:taken]))
        if coming:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match=r"^\[Errno 28\]"):
        file.write(["given up\n".encode(encoding)])
    file.close()
    if moved:
        path.rename(tmp_path / "moved")
        coming.clear()
    else:
        with pytest.raises(OSError, match=r"^\[Errno 28\]"):
            file.write(["after\n".encode(encoding)])
    file.write(["after\n".encode(encoding)])
    file.close()
    start = "" if moved else f"before\n{'given up'[: 6 if encoding == 'utf-8' else 3]}\n"
    assert path.read_text(encoding) == f"{start}after\n"


def test_file_that_cannot_be_moved_costs_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the newest file cannot be renamed, the older ones are moved once."""
    errors: list[Exception] = []
    moment = 100.0
    monkeypatch.setattr(_file, "monotonic", lambda: moment)
    for number in range(1, 5):
        (tmp_path / f"app.log.{number}").write_text(str(number))
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if path.name == "app.log":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    file = make(tmp_path, errors, backup_count=4)
    for _ in range(8):
        file.write([b"12345678\n"])
        moment += 61
    assert len(errors) == 7
    older = [tmp_path / f"app.log.{number}" for number in range(2, 5)]
    assert [path.read_text() for path in older] == ["1", "2", "3"]
    monkeypatch.setattr(Path, "replace", real)
    file.write([b"new\n"])
    file.close()
    assert (tmp_path / "app.log.1").read_bytes() == 8 * b"12345678\n"
    assert [path.read_text() for path in older] == ["1", "2", "3"]


# ---- other hands on the files --------------------------------------------------------------------


def test_logrotate(book: Logbook) -> None:
    """A file that others renamed, removed or truncated is left, and the path opened again."""
    handler = book.open()
    book.logger.info("one")
    assert handler.flush()
    book.path.rename(book.folder / "app.log-1")
    book.logger.info("two")
    assert handler.flush()
    book.path.rename(book.folder / "app.log-2")
    book.path.touch()  # logrotate's "create"
    book.logger.info("and a half")
    assert handler.flush()
    assert book.lines() == ["and a half"]
    book.path.unlink()
    book.logger.info("three")
    assert handler.flush()
    os.truncate(book.path, 0)  # copytruncate
    book.logger.info("four")
    assert handler.flush()
    assert book.files() == {
        "app.log-1": b"one\n",
        "app.log-2": b"two\n",
        "app.log": b"four\n",
    }


def test_other_writers_count(book: Logbook) -> None:
    """What others append to the file counts for its size."""
    handler = book.open(max_bytes=30, backup_count=1)
    book.logger.info("one")
    assert handler.flush()
    with book.path.open("a") as file:
        file.write("from another program.....\n")
    book.logger.info("two")
    assert handler.flush()
    assert book.lines() == ["two"]


def test_two_handlers_share_a_file(book: Logbook) -> None:
    """Two handlers of one path, each with rotation, lose, double and tear nothing."""
    handlers = [AsyncFileHandler(book.path, max_bytes=500, backup_count=999) for _ in range(2)]

    def storm(number: int) -> None:
        for each in range(800):
            handlers[number].handle(logging.makeLogRecord({"msg": f"{number} {each}"}))

    threads = [threading.Thread(target=storm, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for handler in handlers:
        handler.close()
    lines = book.all_lines()
    assert len(lines) == 1600
    for number in range(2):
        mine = [line for line in lines if line.startswith(f"{number} ")]
        assert mine == [f"{number} {each}" for each in range(800)]


def make(folder: Path, errors: list[Exception], **options: Any) -> RotatingFile:
    """Return a file that notes the errors of its rotation."""
    options = {"max_bytes": 10, "backup_count": 2, **options}
    return RotatingFile(str(folder / "app.log"), report=errors.append, **options)


def test_failed_rotation_is_counted(book: Logbook) -> None:
    """A file that could not be rotated is reported and counted, though the record is written."""
    errors: list[Exception] = []
    older = book.folder / "app.log.1"
    (older / "in the way").mkdir(parents=True)
    handler = book.open(max_bytes=10, backup_count=1, on_error=errors.append)
    for message in ("first 1", "second"):
        book.logger.warning(message)
    assert handler.flush()
    assert [type(error) for error in errors] == [IsADirectoryError]
    assert handler.statistics().write_errors == 1
    assert handler.statistics().rotations == 0
    assert book.lines() == ["first 1", "second"]


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_failed_rotation_keeps_the_file_and_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """If the files cannot be renamed, records go on into the one there is; tries are rare."""
    errors: list[Exception] = []
    moment = 100.0
    monkeypatch.setattr(_file, "monotonic", lambda: moment)
    file = make(tmp_path, errors, close_first=system == "nt")
    (tmp_path / "app.log.1").mkdir()
    (tmp_path / "app.log.1" / "in the way").touch()
    (tmp_path / "app.log.2").touch()
    file.write([b"first 1\n", b"second\n", b"third\n"])
    assert (tmp_path / "app.log").read_bytes() == b"first 1\nsecond\nthird\n"
    assert len(errors) == 1
    other = os.open(tmp_path / "app.log", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another process may try its luck
    os.close(other)
    for seconds, tries in ((0.9, 1), (0.2, 2), (1.8, 2), (0.3, 3), (10, 4), (1000, 5), (61, 6)):
        moment += seconds
        file.write([b"x\n"])
        assert len(errors) == tries
    assert file.rotations == 0
    shutil.rmtree(tmp_path / "app.log.1")
    moment += 61
    file.write([b"last\n"])
    file.close()
    assert (tmp_path / "app.log").read_bytes() == b"last\n"
    assert file.rotations == 1


def test_nothing_is_renamed_while_writes_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not push the old files out."""
    file = make(tmp_path, [])
    file.write([b"12345678\n"])

    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    batch = [b"abcdefgh\n", b"ABCDEFGH\n"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        for _ in range(5):
            with pytest.raises(OSError, match=r"^\[Errno 28\]"):
                file.write(batch)
    assert file.rotations == 1  # the one that was due before anything failed
    file.write(batch)
    file.close()
    assert [(tmp_path / name).read_bytes() for name in ("app.log.2", "app.log.1", "app.log")] == [
        b"12345678\n",
        b"abcdefgh\n",
        b"ABCDEFGH\n",
    ]


def test_rotation_that_becomes_possible_while_writes_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is known that writing works again, nothing is renamed."""
    file = make(tmp_path, [])
    file.write([b"12345678\n"])
    other = os.open(tmp_path / "app.log", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    batch = [b"abcdefgh\n", b"ABCDEFGH\n"]
    with monkeypatch.context() as patch:
        Disk(patch, full=3)
        for _ in range(3):
            with pytest.raises(OSError, match=r"^\[Errno 28\]"):
                file.write(batch)
            if other:
                os.close(other)
                other = 0
        assert file.rotations == 0
        file.write(batch)
    file.close()
    assert (tmp_path / "app.log.1").read_bytes() == b"12345678\nabcdefgh\n"
    assert (tmp_path / "app.log").read_bytes() == b"ABCDEFGH\n"


def test_only_one_process_moves_a_file(tmp_path: Path) -> None:
    """While another process has the file locked to move it, records go into it as it is."""
    file = make(tmp_path, [])
    file.write([b"12345678\n"])
    other = os.open(tmp_path / "app.log", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    file.write([b"more\n"])
    assert file.rotations == 0
    os.close(other)
    file.write([b"new\n"])
    assert file.rotations == 1
    file.close()
    assert (tmp_path / "app.log.1").read_bytes() == b"12345678\nmore\n"


@pytest.mark.parametrize("with_folder", ["with its folder", ""])
def test_file_moved_just_before_it_was_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_folder: str
) -> None:
    """A process that gets the lock after another has moved the file leaves it alone."""
    folder = tmp_path / "logs"
    folder.mkdir()
    file = make(folder, [])
    file.write([b"12345678\n"])
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        if with_folder:
            folder.rename(tmp_path / "moved")
        else:
            (folder / "app.log").rename(folder / "app.log.1")
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    batch = [b"new\n"]
    if with_folder:
        with pytest.raises(FileNotFoundError):
            file.write(batch)
        assert batch == [b"new\n"]
        folder.mkdir()
    file.write(batch)
    file.close()
    assert file.rotations == 0
    assert (folder / "app.log").read_bytes() == b"new\n"
    old = tmp_path / "moved" / "app.log" if with_folder else folder / "app.log.1"
    assert old.read_bytes() == b"12345678\n"


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files cannot be locked they are rotated all the same."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    file = make(tmp_path, [])
    file.write([b"12345678\n", b"new\n"])
    file.close()
    assert file.rotations == 1


def test_file_that_cannot_be_closed_is_left_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file before complains when it is closed, the new one is kept, and nothing is open."""
    opened: list[int] = []
    closed: list[int] = []
    open_file, close_file = os.open, os.close

    def noted(path: str, flags: int, mode: int) -> int:
        opened.append(open_file(path, flags, mode))
        return opened[-1]

    def complain(fd: int) -> None:
        closed.append(fd)
        close_file(fd)
        if len(closed) == 1:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    file = make(tmp_path, [])
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", noted)
        patch.setattr(os, "close", complain)
        file.write([b"before\n"])
        (tmp_path / "app.log").rename(tmp_path / "moved.log")
        batch = [b"after\n"]
        with pytest.raises(OSError, match=r"^\[Errno \d+\]"):
            file.write(batch)
        assert batch == [b"after\n"]
        file.write(batch)
        file.close()
    assert (tmp_path / "app.log").read_bytes() == b"after\n"
    assert closed == opened
    assert len(opened) == 2


@pytest.mark.parametrize("there", [True, False])
def test_path_that_may_not_be_looked_at(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The file that is open is written, unless it is known to be deleted."""
    file = make(tmp_path, [], max_bytes=0)
    file.write([b"one\n"])

    def stat(*_: object, **__: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "no search permission")

    if not there:
        (tmp_path / "app.log").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        file.write([b"two\n"])
    file.close()
    assert (tmp_path / "app.log").read_bytes() == (b"one\ntwo\n" if there else b"two\n")


@pytest.mark.parametrize("instead", ["nothing", "a file", "a circle of links"])
def test_folder_that_is_gone_for_a_while(
    book: Logbook, capsys: pytest.CaptureFixture[str], instead: str
) -> None:
    """The records are kept, flushing says so and one error is reported, until it is back."""
    folder = book.folder / "logs"
    folder.mkdir()
    handler = book.open(filename=folder / "app.log")
    book.logger.info("before")
    assert handler.flush()
    shutil.rmtree(folder)
    if instead == "a file":
        folder.touch()
    elif instead == "a circle of links":
        folder.symlink_to(folder)
    for number in range(100):
        book.logger.info("%d", number)
    assert not handler.flush(0.01)
    until(lambda: handler.statistics().write_errors)
    assert (handler.statistics().pending, handler.statistics().written) == (100, 1)
    if instead != "nothing":
        folder.unlink()
    folder.mkdir()
    assert handler.flush(20)
    assert book.lines(folder / "app.log") == [str(number) for number in range(100)]
    assert capsys.readouterr().err.count("\n") == 1


def test_path_that_cannot_be_opened_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused at once, with what to do about it; a folder without rights also for root."""

    def note_of(path: Path | str) -> str:
        with pytest.raises(OSError, match=r"^\[Errno \d+\]") as raised:
            AsyncFileHandler(path)
        (note,) = raised.value.__notes__
        return str(note)

    assert note_of(tmp_path).endswith(f"{str(tmp_path)!r} is a folder; name a file in it.")
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    with socket.socket(socket.AF_UNIX) as listening:  # as standard output is under systemd
        listening.bind("socket")
        assert note_of("socket").endswith("cannot be opened by path; use logging.StreamHandler.")
    fd = os.open(tmp_path, os.O_RDONLY)
    os.close(fd)
    closed = f"/dev/fd/{fd}"
    assert note_of(closed).endswith(f"{closed!r} names a descriptor that is not open; name a file.")

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    note = note_of(tmp_path / "app.log")
    assert "Check that " in note
    assert note.endswith(f"and the folder {str(tmp_path)!r} may be written to.")
    for delay in (False, True):
        with pytest.raises(ValueError, match=r"^filename='\\ud800' cannot be used: "):
            AsyncFileHandler("\ud800", delay=delay)


# ---- descriptors ---------------------------------------------------------------------------------


CRASH = """
import logging

from mtaio.logging import configure

with configure(file="/dev/stderr", console=False):
    for number in range(30):
        logging.warning("record %d", number)
raise RuntimeError("the traceback comes after the records")
"""


def test_standard_error_is_a_file(tmp_path: Path) -> None:
    """With ``2> err.log`` records and the traceback are all there, one after the other."""
    script = tmp_path / "program.py"
    script.write_text(CRASH, encoding="utf-8")
    with (tmp_path / "err.log").open("wb") as out:
        done = subprocess.run(  # noqa: S603 - this very Python, with a program of the test's
            [sys.executable, str(script)], stderr=out, check=False, timeout=100, env=environment()
        )
    assert done.returncode == 1
    lines = (tmp_path / "err.log").read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines[:30]] == [str(n) for n in range(30)]
    assert lines[30].startswith("Traceback")
    assert lines[-1].startswith("RuntimeError: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["err.log", "program.py"]


def test_descriptor_is_shared(book: Logbook) -> None:
    """What others write to it comes in between; it is neither truncated nor rotated nor closed."""
    with book.path.open("wb", buffering=0) as file:
        file.write(b"before\n")
        handler = book.open(
            filename=f"/dev/fd/{file.fileno()}", mode="w", max_bytes=10, backup_count=2
        )
        for number in range(3):
            book.logger.warning("record %d", number)
            handler.close()
            file.write(b"between\n")
    records = [line for number in range(3) for line in (f"record {number}", "between")]
    assert book.lines() == ["before", *records]
    assert list(book.files()) == ["app.log"]
    assert handler.statistics().rotations == 0


def test_descriptor_may_be_a_socket(book: Logbook) -> None:
    """A socket, as systemd gives it, which cannot be opened by its path, is written to."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        handler = book.open(filename=f"/dev/fd/{theirs.fileno()}")
        book.logger.warning("text")
        assert handler.flush()
        assert ours.recv(100) == b"text\n"


def test_descriptor_that_does_not_block(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full pipe is waited for, also if another process made it non-blocking."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    waits = threading.Event()
    real = select.poll

    def poll() -> select.poll:
        waits.set()
        return real()

    monkeypatch.setattr(select, "poll", poll)
    errors: list[Exception] = []
    handler = book.open(filename=f"/dev/fd/{writer}", on_error=errors.append)
    size = 300_000
    book.logger.warning("#" * size)  # the pipe holds less
    assert waits.wait(20)
    read = b""
    while len(read) <= size:
        read += os.read(reader, 1 << 16)
    assert handler.flush()
    assert read == b"#" * size + b"\n"
    assert errors == []
    for fd in (reader, writer):
        os.close(fd)


def test_fifo_is_never_rotated(book: Logbook) -> None:
    """What is not a regular file is written as it is, whatever ``max_bytes`` says."""
    os.mkfifo(book.path)
    reader = os.open(book.path, os.O_RDONLY | os.O_NONBLOCK)
    handler = book.open(max_bytes=10, backup_count=3)
    for number in range(20):
        book.logger.info("record %d", number)
    assert handler.flush()
    assert os.read(reader, 1000).decode().splitlines() == [f"record {n}" for n in range(20)]
    os.close(reader)
    assert [path.name for path in book.folder.iterdir()] == ["app.log"]
    assert handler.statistics().rotations == 0


def test_fifo_that_nobody_reads(book: Logbook) -> None:
    """Making a handler does not wait for a reader; what is queued waits for one without harm."""
    os.mkfifo(book.path)
    with pytest.raises(OSError, match="No such device or address") as refused:
        book.open()
    (note,) = refused.value.__notes__
    assert note.endswith("app.log' is a named pipe that nobody reads. Start the reader first.")
    errors: list[Exception] = []
    handler = book.open(delay=True, on_error=errors.append)
    book.logger.info("early")
    until(lambda: errors)
    reader = os.open(book.path, os.O_RDONLY | os.O_NONBLOCK)
    assert handler.flush(60)
    assert os.read(reader, 1000) == b"early\n"
    os.close(reader)
    assert [getattr(error, "errno", None) for error in errors] == [errno.ENXIO]


# ---- a fork, seen from inside --------------------------------------------------------------------


def test_child_of_a_fork_has_nothing_queued(
    book: Logbook, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a forked child does first leaves it with an empty queue and a file of its own."""
    monkeypatch.setattr(_shutdown, "process", _shutdown._Process())  # which has this handler alone
    handler = book.open()
    disk.full = math.inf
    book.logger.info("the parent's")
    until(lambda: handler.statistics().write_errors)
    _shutdown._in_child()
    assert (handler.statistics().pending, handler.statistics().write_errors) == (0, 0)
    assert not is_open(book.path)
    disk.full = 0
    book.logger.info("the child's")
    handler.close()
    assert book.lines()[-1] == "the child's"
