"""Rotation by time: the clock is set by the tests, the files are real."""

from __future__ import annotations

import errno
import gzip
import logging
import logging.config
import logging.handlers
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.logging import AsyncFileHandler, _file, configure
from mtaio.logging._file import RotatingFile
from mtaio.logging._periods import Periods
from tests.logging.test_rotators import zip_it, zipped
from tests.logging.tools import at, contents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.logging.tools import Logbook, Wall

DAY = 86400.0


def make(folder: Path, report: Callable[[Exception], None], **options: Any) -> RotatingFile:
    """Return a file that is rotated at midnight, UTC."""
    options = {"periods": Periods("midnight", utc=True), "backup_count": 9, **options}
    return RotatingFile(str(folder / "app.log"), report=report, **options)


def unexpected(error: Exception) -> None:
    """Fail: no rotation was to go wrong."""
    raise AssertionError from error


def write(file: RotatingFile, *records: str) -> None:
    """Write records, in one batch."""
    batch = [f"{record}\n".encode() for record in records]
    file.write(batch)
    assert batch == []


def written(folder: Path) -> dict[str, str]:
    """Return all files with what is in them, on one line."""
    return {name: data.decode().replace("\n", " ") for name, data in contents(folder).items()}


# ---- when, and what it is called -----------------------------------------------------------------


@settings(max_examples=40)
@given(
    when=st.sampled_from(["midnight", "W0", "W4"]),
    steps=st.lists(st.integers(1, 40_000), max_size=12),
    backup_count=st.integers(0, 4),
)
def test_files_are_those_of_the_standard_handler(
    when: str, steps: list[int], backup_count: int
) -> None:
    """
    By day and by week, wherever the records fall: the same names, and the same in them.

    The standard library's weeks end with the day that is named, unless they are given a time.
    """
    now = at("2026-03-01T12:00:01")
    with (
        TemporaryDirectory() as ours,
        TemporaryDirectory() as theirs,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(_file, "time", lambda: now)
        fake = SimpleNamespace(**{**vars(time), "time": lambda: now})
        patch.setattr(logging.handlers, "time", fake)
        file = RotatingFile(
            str(Path(ours, "app.log")),
            periods=Periods(when, utc=True),
            backup_count=backup_count,
            report=unexpected,
        )
        path = Path(theirs, "app.log")
        model = logging.handlers.TimedRotatingFileHandler(
            path,
            when,
            backupCount=backup_count,
            encoding="utf-8",
            delay=True,
            utc=True,
            atTime=None if when == "midnight" else datetime.min.time(),
        )
        for number, step in enumerate(steps):
            write(file, f"record {number}")
            model.handle(logging.makeLogRecord({"msg": f"record {number}"}))
            now += 10 * step
        file.close()
        model.close()
        assert contents(Path(ours)) == contents(Path(theirs))


def test_one_rotation_for_each_period_with_records(tmp_path: Path, wall: Wall) -> None:
    """Without records there is none; after several periods there is one; names say the start."""
    file = make(tmp_path, unexpected)
    file.open()
    wall.set("2026-03-02T12:00")  # nothing was written on the first
    write(file, "a", "b")
    wall.set("2026-03-02T23:59:59.9")
    write(file, "c")
    wall.set("2026-03-03T00:00")
    write(file, "d")
    wall.set("2026-03-09T00:00")
    write(file, "e", "f")
    write(file, "g")
    file.close()
    assert written(tmp_path) == {
        "app.log.2026-03-02": "a b c ",
        "app.log.2026-03-03": "d ",
        "app.log": "e f g ",
    }
    assert file.rotations == 2


def test_by_size_as_well(tmp_path: Path, wall: Wall) -> None:
    """Whichever comes first; the files of a day are numbered, also after the first are gone."""
    file = make(tmp_path, unexpected, max_bytes=7, backup_count=2)
    write(file, *"abcdefg")
    assert written(tmp_path) == {
        "app.log.2026-03-01": "a b c ",
        "app.log.2026-03-01.1": "d e f ",
        "app.log": "g ",
    }
    write(file, *"hijkl")
    wall.set("2026-03-02T00:00")
    assert written(tmp_path)["app.log"] == "j k l "
    write(file, "m")
    file.close()
    assert written(tmp_path) == {
        "app.log.2026-03-01.2": "g h i ",
        "app.log.2026-03-01.3": "j k l ",
        "app.log": "m ",
    }


@pytest.mark.parametrize(("backup_count", "left"), [(0, 4), (1, 1), (2, 2), (9, 4)])
def test_only_our_own_older_files_are_deleted(
    tmp_path: Path, wall: Wall, backup_count: int, left: int
) -> None:
    """The oldest of those with a name of ours go; what only looks like one stays."""
    others = [
        *("app.log.1", "app.log.2026-02-01.gz", "app.log.2026-02-01.01", "app.log.2026-02-01.1.2"),
        *("app.log.2026-02-01~", "app.log-2026-02-01", "app.log.2026-2-1", "app.log.12026-02-01"),
        *("myapp.log.2026-02-01", "app.log2026-02-01", "app.log.2026-02-01_1", "2026-02-01"),
    ]
    for name in [*others, "app.log.2026-02-01.10", "app.log.2026-02-01.9", "app.log.2026-02-28_23"]:
        (tmp_path / name).touch()
    file = make(tmp_path, unexpected, backup_count=backup_count)
    write(file, "a")
    wall.set("2026-03-02T12:00")
    write(file, "b")
    file.close()
    ours = sorted({path.name for path in tmp_path.iterdir()} - {*others, "app.log"})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, *ours, "app.log"])
    assert ours == sorted(
        [
            *("app.log.2026-02-01.9", "app.log.2026-02-01.10", "app.log.2026-02-28_23"),
            "app.log.2026-03-01",
        ][-left:]
    )


@pytest.mark.parametrize("name", ["app", ".log", "a[1]+(x)$.log", "2026-02-01.7.log", "日本 {0}"])
def test_file_of_any_name(tmp_path: Path, wall: Wall, name: str) -> None:
    """Whatever the file is called; a folder of that name is nobody's older file."""
    path = tmp_path / name
    (tmp_path / f"{name}.2026-03-01").mkdir()
    periods = Periods("midnight", utc=True)
    file = RotatingFile(str(path), periods=periods, backup_count=1, report=unexpected)
    for record in "abc":
        write(file, record)
        wall.now += DAY
    file.close()
    assert sorted(tmp_path.iterdir()) == sorted(
        [path, *(tmp_path / f"{name}.2026-03-0{day}" for day in (1, 2))]
    )
    assert written(tmp_path) == {f"{name}.2026-03-02": "b ", name: "c "}


# ---- clocks --------------------------------------------------------------------------------------


def test_clock_that_is_put_right(tmp_path: Path, wall: Wall) -> None:
    """A little back, over a midnight, starts no file; the next midnight counts."""
    file = make(tmp_path, unexpected)
    wall.set("2026-03-01T23:59:59")
    write(file, "a")
    wall.set("2026-03-02T00:00:00.1")
    write(file, "b")
    wall.set("2026-03-01T23:59:59.8")
    write(file, "c")
    wall.set("2026-03-02T00:00")
    write(file, "d")
    wall.set("2026-03-03T00:00")
    write(file, "e")
    file.close()
    assert written(tmp_path) == {
        "app.log.2026-03-01": "a ",
        "app.log.2026-03-02": "b c d ",
        "app.log": "e ",
    }


def test_clock_that_was_years_ahead(tmp_path: Path, wall: Wall) -> None:
    """No file waits for those years to come; files from then are the oldest."""
    wall.set("2036-01-01T12:00")
    file = make(tmp_path, unexpected, backup_count=2)
    for number in range(3):
        write(file, f"future-{number}")
        wall.now += DAY
    wall.set("2026-03-01T12:00")
    write(file, "a")
    for number in range(3):
        wall.now += DAY
        write(file, f"day-{number}")
    file.close()
    assert written(tmp_path) == {
        "app.log.2026-03-02": "day-0 ",
        "app.log.2026-03-03": "day-1 ",
        "app.log": "day-2 ",
    }


# ---- files that are there already ----------------------------------------------------------------


@pytest.mark.parametrize("delay", [False, True])
@pytest.mark.parametrize(
    ("last", "moved"),
    [
        ("2026-02-27T23:00", "app.log.2026-02-27"),
        ("2026-03-01T00:00", None),
        ("2040-03-01T00:00", None),
        ("1970-01-01T00:00", "app.log.1970-01-01"),
    ],
)
def test_file_of_an_earlier_run(
    tmp_path: Path,
    wall: Wall,
    last: str,
    moved: str | None,
    *,
    delay: bool,
) -> None:
    """The first record moves it if its last one is of an earlier period."""
    path = tmp_path / "app.log"
    path.write_text("before\n")
    os.utime(path, (at(last), at(last)))
    file = make(tmp_path, unexpected)
    if not delay:
        file.open()
        assert written(tmp_path) == {"app.log": "before "}
    write(file, "a")
    found = {moved: "before ", "app.log": "a "} if moved else {"app.log": "before a "}
    assert written(tmp_path) == found
    wall.set("2026-03-02T00:00")
    write(file, "b")
    file.close()
    assert written(tmp_path)["app.log"] == "b "


def test_file_of_an_earlier_run_that_is_empty(tmp_path: Path, wall: Wall) -> None:
    """It is used: a file without records is never moved."""
    (tmp_path / "app.log").touch()
    os.utime(tmp_path / "app.log", (at("2026-01-01"), at("2026-01-01")))
    file = make(tmp_path, unexpected)
    write(file, "a")
    wall.set("2026-03-02T00:00")
    write(file, "b")
    file.close()
    assert written(tmp_path) == {"app.log.2026-03-01": "a ", "app.log": "b "}


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot move an open file")
def test_file_that_another_has_started(tmp_path: Path, wall: Wall) -> None:
    """What others rotated is not rotated again, though its time may be behind our clock."""
    files = [make(tmp_path, unexpected) for _ in range(3)]
    for name, file in zip("abc", files, strict=True):
        write(file, name)
    wall.set("2026-03-02T00:00:00.001")
    for name, file in zip("def", files, strict=True):
        write(file, name)
        last = at("2026-03-01T23:59:59.998")  # of the kernel's clock, or of a server's
        os.utime(tmp_path / "app.log", (last, last))
    assert written(tmp_path) == {"app.log.2026-03-01": "a b c ", "app.log": "d e f "}
    wall.set("2026-03-05T00:00")
    last = at("2026-03-04T12:00")
    (tmp_path / "app.log").rename(tmp_path / "moved.log")
    (tmp_path / "app.log").write_text("by another\n")
    os.utime(tmp_path / "app.log", (last, last))
    for name, file in zip("ghi", files, strict=True):
        write(file, name)
        file.close()
    assert written(tmp_path) == {
        "app.log.2026-03-01": "a b c ",
        "moved.log": "d e f ",
        "app.log.2026-03-04": "by another ",
        "app.log": "g h i ",
    }
    assert [file.rotations for file in files] == [2, 0, 0]


# ---- what fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize("close_first", sorted({os.name == "nt", True}))
def test_file_that_cannot_be_moved(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, *, close_first: bool
) -> None:
    """The records go on in it, it is tried again after a while, and has the name it would have."""
    errors: list[Exception] = []
    moment = 100.0
    monkeypatch.setattr(_file, "monotonic", lambda: moment)
    file = make(tmp_path, errors.append, close_first=close_first)
    write(file, "a")

    def replace(*_: object) -> Path:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        for seconds, tries in ((0, 1), (0.9, 1), (0.2, 2), (DAY, 3)):
            moment += seconds
            wall.now += DAY
            write(file, "b", "c")
            assert len(errors) == file.rotation_errors == tries
    moment += 61
    write(file, "d")
    file.close()
    assert written(tmp_path) == {"app.log.2026-03-01": "a b c b c b c b c ", "app.log": "d "}
    assert file.rotations == 1


def test_rotator_that_fails_leaves_no_older_file(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it fails, there is one name for the file, and older ones stay."""
    errors: list[Exception] = []
    moment = 100.0
    monkeypatch.setattr(_file, "monotonic", lambda: moment)
    (tmp_path / "app.log.2026-02-28").write_text("older\n")
    file = make(tmp_path, errors.append, backup_count=2)

    def full(source: str, dest: str) -> None:
        assert not Path(dest).exists()
        Path(dest).write_bytes(Path(source).read_bytes()[:1])
        raise OSError(errno.ENOSPC, "disk full")

    file.rotator = full
    write(file, "a")
    wall.now += DAY
    for _ in range(3):
        moment += 100
        write(file, "b")
    assert len(errors) == 3
    found = {"app.log.2026-02-28": "older ", "app.log.2026-03-01": "a", "app.log": "a b b b "}
    assert written(tmp_path) == found
    file.rotator = None
    moment += 100
    write(file, "c")
    file.close()
    assert written(tmp_path) == {
        "app.log.2026-02-28": "older ",
        "app.log.2026-03-01": "a b b b ",
        "app.log": "c ",
    }


def test_older_file_that_cannot_be_deleted(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported, the others are deleted, and the file is rotated all the same."""
    errors: list[Exception] = []
    for day in (1, 2):
        (tmp_path / f"app.log.2026-02-0{day}").touch()
    real = Path.unlink

    def unlink(path: Path, *, missing_ok: bool) -> None:
        if path.name.endswith("01"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    file = make(tmp_path, errors.append, backup_count=1)
    write(file, "a")
    wall.now += DAY
    write(file, "b")
    file.close()
    assert written(tmp_path) == {
        "app.log.2026-02-01": "",
        "app.log.2026-03-01": "a ",
        "app.log": "b ",
    }
    assert [type(error) for error in errors] == [PermissionError]
    assert (file.rotations, file.rotation_errors) == (1, 1)


# ---- names of the user's -------------------------------------------------------------------------


def test_compressed(tmp_path: Path, wall: Wall) -> None:
    """With the functions that compress by size, and old ones are deleted."""
    file = make(tmp_path, unexpected, backup_count=2, max_bytes=6)
    file.namer, file.rotator = zipped, zip_it
    for record in "abcd":
        write(file, record, record, record)
        wall.now += DAY
    write(file, "last")
    file.close()
    found = contents(tmp_path)
    assert found.pop("app.log") == b"last\n"
    assert {name: gzip.decompress(data) for name, data in found.items()} == {
        "app.log.2026-03-04.gz": b"d\nd\n",
        "app.log.2026-03-04.1.gz": b"d\n",
    }


def dashes(default: str) -> str:
    """Put the date before the suffix, with a dash before the number."""
    stem, _, end = default.partition(".log.")
    return f"{stem}-{end.replace('.', '-')}.log"


def archive(default: str) -> str:
    """Put older files into another folder, which a rotator may make."""
    path = Path(default)
    return str(path.parent / "older" / path.name)


def german(default: str) -> str:
    """Turn the date round, so that it is not found."""
    stem, _, end = default.partition(".log.")
    date, *number = end.split(".")
    return ".".join([stem, *reversed(date.split("-")), *number, "log"])


@pytest.mark.parametrize(
    ("namer", "older"),
    [
        (dashes, ["app-2026-03-02-1.log", "app-2026-03-02-2.log"]),
        (archive, ["app.log.2026-03-02.1", "app.log.2026-03-02.2"]),
        (german, ["app.01.03.2026.log", *(f"app.02.03.2026{n}.log" for n in ("", ".1", ".2"))]),
    ],
)
def test_names_of_the_users(
    tmp_path: Path, wall: Wall, namer: Callable[[str], str], older: list[str]
) -> None:
    """Older files are known again, and deleted, if their names still have the date as it is."""

    def move(source: str, dest: str) -> None:
        Path(dest).parent.mkdir(exist_ok=True)
        Path(source).rename(dest)

    file = make(tmp_path, unexpected, backup_count=2, max_bytes=3)
    file.namer, file.rotator = namer, move
    write(file, "a")
    wall.now += DAY
    write(file, *"bcde")
    file.close()
    assert sorted(p.name for p in tmp_path.rglob("*.*") if p.name != "app.log") == sorted(older)


def test_one_name_for_all(tmp_path: Path, wall: Wall) -> None:
    """No older file is written over: that is an error of the rotation."""
    errors: list[Exception] = []
    file = make(tmp_path, errors.append)
    file.namer = lambda default: default.partition(".log")[0] + ".old"
    for record in "abc":
        write(file, record)
        wall.now += DAY
    file.close()
    assert written(tmp_path) == {"app.old": "a ", "app.log": "b c "}
    (error,) = errors
    assert str(error).startswith("namer=<function")
    assert "app.old' for two older files. It has to return" in str(error)


def test_name_without_the_number(tmp_path: Path, wall: Wall) -> None:
    """Files that the namer gives one name are one older file, not two."""
    file = make(tmp_path, unexpected, backup_count=2)
    file.namer = lambda default: ".".join(default.split(".")[:3])
    for record in "abcd":
        write(file, record)
        wall.now += DAY
    file.close()
    assert sorted(written(tmp_path)) == [
        "app.log",
        "app.log.2026-03-02",
        "app.log.2026-03-03",
    ]


# ---- the handler ---------------------------------------------------------------------------------


def test_handler(book: Logbook, wall: Wall) -> None:
    """The writing thread rotates, and counts it; the mode is to append."""
    book.path.write_text("before\n")
    os.utime(book.path, (at("2026-02-28"), at("2026-02-28")))
    handler = book.open(mode="w", when="D", utc=True, backup_count=1)
    for message in ("one", "two"):
        book.logger.info(message)
        assert handler.flush()
        wall.now += DAY
    assert book.files() == {"app.log.2026-03-01": b"one\n", "app.log": b"two\n"}
    assert handler.statistics().rotations == 2


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"when": "noon"}, ValueError, "when='noon' is unknown. Pass 'midnight', 'D', 'H', 'M', 'S'"),
    ({"when": "W7"}, ValueError, "when='W7' is unknown."),
    ({"when": ""}, ValueError, "when='' is unknown."),
    ({"when": 5}, ValueError, "when=5 is unknown."),
    ({"when": "H", "interval": 0}, ValueError, "interval=0 is less than 1. Pass 1 to 24."),
    ({"when": "H", "interval": 25}, ValueError, "interval=25 is too long for when='H'. Pass 1 to"),
    ({"when": "M", "interval": 1.5}, TypeError, "interval=1.5 is a float, not an int."),
    ({"when": "D", "interval": 367}, ValueError, "interval=367 is too long for when='D'. Pass 1"),
    ({"when": "D", "utc": 1}, TypeError, "utc=1 is an int, not a bool."),
    ({"when": "D", "at_time": "04:30"}, TypeError, "at_time='04:30' is a str. Pass a datetime."),
    ({"when": "H", "at_time": datetime.min.time()}, ValueError, "at_time=datetime.time(0, 0) has"),
    (
        {"when": "D", "at_time": datetime.min.time().replace(tzinfo=UTC)},
        ValueError,
        "at_time=datetime.time(0, 0, tzinfo=datetime.timezone.utc) has a time zone. Pass one",
    ),
    ({"interval": 2}, ValueError, "interval=2 has no meaning without when. Pass when='midnight'"),
    ({"utc": True}, ValueError, "utc=True has no meaning without when."),
    ({"at_time": datetime.min.time()}, ValueError, "at_time=datetime.time(0, 0) has no meaning"),
]


@pytest.mark.parametrize(("options", "kind", "says"), REFUSED, ids=range(len(REFUSED)))
def test_refused(tmp_path: Path, options: dict[str, Any], kind: type[Exception], says: str) -> None:
    """At once, and no file is made."""
    with pytest.raises(kind) as refused:
        AsyncFileHandler(tmp_path / "app.log", **options)
    assert str(refused.value).startswith(says)
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Return a logger of the test's own."""
    logger = logging.getLogger("mtaio.tests.by_time")
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


def test_from_a_dictionary(tmp_path: Path, wall: Wall, logger: logging.Logger) -> None:
    """``dictConfig`` passes the arguments."""
    handler = {
        "class": "mtaio.logging.AsyncFileHandler",
        "filename": str(tmp_path / "app.log"),
        "when": "H",
        "interval": 6,
        "utc": True,
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"file": handler},
            "loggers": {logger.name: {"handlers": ["file"]}},
        }
    )
    for message in ("one", "two"):
        logger.warning(message)
        assert logger.handlers[0].flush() is True  # type: ignore[func-returns-value]
        wall.now += DAY / 4
    assert written(tmp_path) == {"app.log.2026-03-01_12": "one ", "app.log": "two "}


@pytest.mark.parametrize("source", ["argument", "settings", "environment", "nowhere"])
def test_configured(
    tmp_path: Path,
    wall: Wall,
    logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    """`configure` takes it where it takes the other values from, and names it as it is there."""
    given: dict[str, Any] = {"logger": logger, "file": tmp_path / "app.log", "console": False}
    rest = {"log_level": "INFO", "log_file": None, "log_max_bytes": 0, "log_backup_count": 1}
    own = SimpleNamespace(**rest, log_format="text", log_when="MIDNIGHT")
    if source == "environment":
        monkeypatch.setenv("MTAIO_LOG_WHEN", "MIDNIGHT")
    elif source == "settings":
        given["settings"] = own
    elif source == "argument":
        monkeypatch.setenv("MTAIO_LOG_WHEN", "noon")
        given["when"] = "MIDNIGHT"
    with configure(**given):
        (handler,) = logger.handlers
        for message in ("one", "two"):
            logger.warning(message)
            handler.flush()
            wall.now += 2 * DAY
    assert len([*tmp_path.iterdir()]) == (1 if source == "nowhere" else 2)
    own.log_when = "noon"
    monkeypatch.setenv("MTAIO_LOG_WHEN", "noon")
    name = {"argument": "when", "settings": "log_when"}.get(source, "MTAIO_LOG_WHEN")
    with pytest.raises(ValueError, match=rf"^{name}='noon' is unknown\."):
        configure(**given | ({"when": "noon"} if source == "argument" else {}))
    if source == "environment":
        configure(**given, when="").close()
