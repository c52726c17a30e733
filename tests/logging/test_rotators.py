"""``namer`` and ``rotator``: as those of the standard library's handlers, in the writing thread."""

from __future__ import annotations

import gc
import gzip
import logging
import logging.config
import logging.handlers
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.logging import AsyncFileHandler, _file
from mtaio.logging._file import RotatingFile
from tests.logging.tools import contents

if TYPE_CHECKING:
    from tests.logging.tools import Logbook


def zipped(default: str) -> str:
    """Name an older file as the cookbook of logging does."""
    return f"{default}.gz"


def zip_it(source: str, dest: str) -> None:
    """Compress a file, as the cookbook of logging does."""
    with Path(source).open("rb") as plain, gzip.open(dest, "wb") as smaller:
        shutil.copyfileobj(plain, smaller)
    Path(source).unlink()


def empty_it(source: str, dest: str) -> None:
    """Copy a file and empty it, for those who have it open."""
    shutil.copyfile(source, dest)
    with Path(source).open("wb"):
        pass


def move_it(source: str, dest: str) -> None:
    """Do what is done anyway, as Windows has it: never over a file that exists."""
    assert not Path(dest).exists()
    Path(source).rename(dest)


def unzipped(folder: Path) -> dict[str, bytes]:
    """Return what is in the files, those that are compressed too."""
    return {
        name: gzip.decompress(data) if name.endswith(".gz") else data
        for name, data in contents(folder).items()
    }


@pytest.mark.parametrize("backup_count", [1, 3])
@pytest.mark.parametrize("rotator", [None, zip_it, empty_it, move_it])
@pytest.mark.parametrize("namer", [None, zipped])
def test_files_are_those_of_the_standard_handler(
    tmp_path: Path, namer: Any, rotator: Any, backup_count: int
) -> None:
    """With the same functions the same files come about, under the same names."""
    found = []
    for name in ("ours", "theirs"):
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "app.log"
        handler: Any
        if name == "ours":
            handler = AsyncFileHandler(path, max_bytes=20, backup_count=backup_count)
        else:
            handler = logging.handlers.RotatingFileHandler(
                path, maxBytes=20, backupCount=backup_count, encoding="utf-8"
            )
        handler.namer, handler.rotator = namer, rotator
        assert (handler.namer, handler.rotator) == (namer, rotator)
        for number in range(12):
            handler.handle(logging.makeLogRecord({"msg": f"record {number}"}))
        handler.close()
        found.append(unzipped(folder) if rotator is zip_it and namer else contents(folder))
    if rotator is zip_it and not namer:
        assert found[0].keys() == found[1].keys()  # gzip writes the time into its files
    else:
        assert found[0] == found[1]
    assert len(found[0]) == 1 + backup_count


def test_called_in_the_writing_thread(book: Logbook) -> None:
    """No caller waits for a rotation, and both get texts."""
    handler = book.open(max_bytes=10, backup_count=1)
    calls: list[tuple[object, ...]] = []

    def namer(default: str) -> Path:
        calls.append(("namer", threading.current_thread(), default))
        return Path(default).with_suffix(".old")

    def rotator(source: str, dest: str) -> None:
        calls.append(("rotator", threading.current_thread(), source, dest))
        move_it(source, dest)

    handler.namer, handler.rotator = namer, rotator
    book.logger.warning("first 1")
    book.logger.warning("second")
    (thread,) = book.threads()
    assert handler.flush()
    path = str(book.path)
    assert calls == [
        ("namer", thread, f"{path}.1"),
        ("rotator", thread, path, f"{path}.old"),
    ]
    assert handler.statistics().rotations == 1
    assert book.files() == {"app.log": b"second\n", "app.log.old": b"first 1\n"}


def test_errors_are_those_of_a_rotation(book: Logbook) -> None:
    """What the functions raise is reported and counted; the records are written all the same."""
    errors: list[Exception] = []
    handler = book.open(max_bytes=10, backup_count=1, on_error=errors.append)

    def broken(*_: object) -> str:
        raise LookupError("broken")

    handler.namer = broken
    book.logger.warning("first 1")
    book.logger.warning("second")
    assert handler.flush()
    assert [repr(error) for error in errors] == ["LookupError('broken')"]
    assert handler.statistics().write_errors == 1
    assert handler.statistics().rotations == 0
    assert book.lines() == ["first 1", "second"]


@pytest.mark.parametrize("close_first", sorted({os.name == "nt", True}))
def test_rotator_that_fails_costs_no_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, close_first: bool
) -> None:
    """Whatever it leaves half done: the older files are moved once, and it is tried again later."""
    errors: list[Exception] = []
    moment = 100.0
    monkeypatch.setattr(_file, "monotonic", lambda: moment)
    file = RotatingFile(
        str(tmp_path / "app.log"),
        max_bytes=10,
        backup_count=3,
        report=errors.append,
        close_first=close_first,
    )
    for number in (1, 2):
        (tmp_path / f"app.log.{number}").write_bytes(b"%d" % number)

    def full(source: str, dest: str) -> None:
        Path(dest).write_bytes(Path(source).read_bytes()[:3])
        raise OSError("disk full")

    file.rotator = full
    file.write([b"12345678\n"])
    for _ in range(4):
        moment += 100
        file.write([b"x\n"])
    assert len(errors) == file.rotation_errors == 4
    found = {"app.log": b"12345678\n" + b"x\n" * 4, "app.log.1": b"123"}
    assert contents(tmp_path) == {**found, "app.log.2": b"1", "app.log.3": b"2"}
    file.rotator = zip_it
    moment += 100
    file.write([b"last\n"])
    assert gzip.decompress((tmp_path / "app.log.1").read_bytes()) == found["app.log"]
    assert (tmp_path / "app.log").read_bytes() == b"last\n"
    file.write([b"12345678\n", b"end\n"])
    file.close()
    assert (tmp_path / "app.log.1").exists()
    assert gzip.decompress((tmp_path / "app.log.3").read_bytes()) == found["app.log"]


def test_rotator_that_does_nothing(book: Logbook) -> None:
    """A file that stays as it was would be rotated for ever: that is an error too."""
    errors: list[Exception] = []
    handler = book.open(max_bytes=10, backup_count=1, on_error=errors.append)
    handler.rotator = lambda *_: None
    for message in ("first 1", "second"):
        book.logger.warning(message)
    assert handler.flush()
    (error,) = errors
    assert str(error).startswith("rotator=<function")
    assert "app.log'. It has to do one of these" in str(error)
    assert book.lines() == ["first 1", "second"]


def test_namer_that_names_the_file_itself(book: Logbook) -> None:
    """It would have the file take its own place."""
    errors: list[Exception] = []
    handler = book.open(max_bytes=10, backup_count=1, on_error=errors.append)
    handler.namer = lambda default: default.removesuffix(".1")
    handler.rotator = zip_it
    for message in ("first 1", "second"):
        book.logger.warning(message)
    assert handler.flush()
    (error,) = errors
    assert str(error).startswith("namer=<function")
    assert "app.log', the name of the log file itself" in str(error)
    assert book.lines() == ["first 1", "second"]


def test_what_cannot_be_called_is_refused(book: Logbook) -> None:
    """When it is set, not with the first rotation; None takes it away."""
    handler: Any = book.open()
    with pytest.raises(TypeError, match=r"^namer='\.gz' is a str, which is not callable\."):
        handler.namer = ".gz"
    with pytest.raises(TypeError, match=r"^rotator=5 is an int, which is not callable\."):
        handler.rotator = 5
    handler.namer = handler.rotator = None
    assert handler.namer is handler.rotator is None


def test_from_a_dictionary(tmp_path: Path) -> None:
    """``dictConfig`` sets attributes under the key ``"."``."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "file": {
                    "class": "mtaio.logging.AsyncFileHandler",
                    "filename": str(tmp_path / "app.log"),
                    ".": {"namer": zipped, "rotator": zip_it},
                }
            },
            "loggers": {"mtaio.tests.rotators": {"handlers": ["file"]}},
        }
    )
    logger = logging.getLogger("mtaio.tests.rotators")
    (handler,) = logger.handlers
    assert isinstance(handler, AsyncFileHandler)
    assert (handler.namer, handler.rotator) == (zipped, zip_it)
    logger.removeHandler(handler)
    handler.close()


def test_methods_of_a_subclass(tmp_path: Path) -> None:
    """A subclass may define them as methods, as one of the standard library's handlers may."""

    class Zipping(AsyncFileHandler):
        suffix = ".gz"

        def namer(self, default: str) -> str:
            return default + self.suffix

        @staticmethod
        def rotator(source: str, target: str) -> None:
            zip_it(source, target)

    handler = Zipping(tmp_path / "app.log", max_bytes=1, backup_count=2)
    for number in range(4):
        handler.emit(logging.makeLogRecord({"msg": str(number)}))
    handler.close()
    assert handler.statistics().rotations == 3
    older = {path.name: path.read_bytes() for path in tmp_path.glob("*.gz")}
    assert {name: gzip.decompress(data) for name, data in older.items()} == {
        "app.log.1.gz": b"2\n",
        "app.log.2.gz": b"1\n",
    }


def test_methods_of_a_handler_without_references(tmp_path: Path) -> None:
    """What was logged before the last reference went is written under the names it makes."""

    class Dated(AsyncFileHandler):
        def namer(self, default: str) -> str:
            return f"{default}.old"

    program = [Dated(tmp_path / "app.log", max_bytes=1, backup_count=9)]
    for number in range(4):
        program[0].emit(logging.makeLogRecord({"msg": str(number)}))
    writer = program[0]._writer
    program.clear()
    gc.collect()
    writer.wait_closed(writer.request_close())
    assert {path.name for path in tmp_path.iterdir()} == {
        "app.log",
        *(f"app.log.{n}.old" for n in (1, 2, 3)),
    }
