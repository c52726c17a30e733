from __future__ import annotations

import errno
import logging
import logging.handlers
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.logging import AsyncFileHandler
from mtaio.logging._file import RotatingFile
from tests.logging.tools import contents

if TYPE_CHECKING:
    from collections.abc import Iterator

ENCODINGS = [
    *("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7"),
    *("ascii", "latin-1", "cp037", "shift_jis", "euc_jp", "iso2022_jp", "iso2022_kr", "hz"),
    *("gb18030", "big5", "cp1252", "koi8-r"),
]
ERRORS = ["strict", "ignore", "replace", "backslashreplace", "xmlcharrefreplace", "namereplace"]


class Model(logging.handlers.RotatingFileHandler):
    """What the files are to be: the standard library's handler, counting bytes."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: D102, N802 - as RotatingFileHandler's
        text = self.format(record) + "\n"
        size = len(text.encode(self.encoding or "", self.errors or ""))
        if self.stream is None:
            self.stream = self._open()
        self.stream.seek(0, os.SEEK_END)
        pos = self.stream.tell()
        return bool(self.maxBytes and self.backupCount and pos and pos + size >= self.maxBytes)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.text(
    st.sampled_from("abc日本語é€🐍\ud800\r\n"), max_size=30
)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_with_a_beginning(tmp_path: Path, encoding: str) -> None:
    """Marks and designations stand where the standard library puts them, in new and old files."""
    ours = AsyncFileHandler(tmp_path / "ours", encoding=encoding)
    theirs = Model(tmp_path / "theirs", encoding=encoding)
    for handler in (ours, theirs):
        for message in ("one", "two"):
            handler.handle(logging.makeLogRecord({"msg": message}))
        handler.close()
        handler.handle(logging.makeLogRecord({"msg": "three"}))
        handler.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.heavy
@settings(max_examples=80)
@given(
    messages=st.lists(TEXTS | st.none(), max_size=25),
    encoding=st.sampled_from(ENCODINGS),
    errors=st.sampled_from(ERRORS),
    max_bytes=st.integers(0, 120),
    backup_count=st.integers(0, 9),
    delay=st.booleans(),
    existing=st.dictionaries(st.integers(0, 10), st.binary(max_size=100), max_size=4),
)
def test_files_are_those_of_the_model(  # noqa: PLR0917 - what Hypothesis draws
    messages: list[str | None],
    encoding: str,
    errors: str,
    max_bytes: int,
    backup_count: int,
    delay: bool,  # noqa: FBT001 - as above
    existing: dict[int, bytes],
) -> None:
    """The files are, byte for byte, those of a ``RotatingFileHandler`` that counts bytes."""
    if encoding.startswith("iso2022"):
        # There these are no text but shift to another character set.
        messages = [text and text.translate(dict.fromkeys(b"\x0e\x0f\x1b")) for text in messages]
    with TemporaryDirectory() as ours, TemporaryDirectory() as theirs:
        for folder in map(Path, (ours, theirs)):
            for number, old in existing.items():
                name = f"app.log.{number}" if number else "app.log"
                (folder / name).write_bytes(old)
        handlers: list[logging.Handler] = [
            AsyncFileHandler(
                Path(ours, "app.log"),
                encoding=encoding,
                errors=errors,
                max_bytes=max_bytes,
                backup_count=backup_count,
                delay=delay,
            ),
            Model(
                Path(theirs, "app.log"),
                encoding=encoding,
                errors=errors,
                maxBytes=max_bytes,
                backupCount=backup_count,
                delay=delay,
            ),
        ]
        failed: tuple[list[logging.LogRecord], list[logging.LogRecord]] = [], []
        for handler, failures in zip(handlers, failed, strict=True):
            vars(handler)["handleError"] = failures.append
            for message in messages:
                if message is None:
                    handler.close()
                else:
                    handler.handle(logging.makeLogRecord({"msg": message}))
            handler.close()
        assert contents(Path(ours)) == contents(Path(theirs))
        assert [record.msg for record in failed[0]] == [record.msg for record in failed[1]]


@pytest.mark.heavy
@settings(max_examples=40)
@given(
    batches=st.lists(st.lists(st.binary(min_size=1, max_size=30), max_size=20), max_size=8),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    max_bytes=st.integers(1, 120),
    backup_count=st.integers(1, 3),
    close_first=st.booleans(),
)
def test_batches_do_not_matter(
    batches: list[list[bytes]],
    encoding: str,
    max_bytes: int,
    backup_count: int,
    close_first: bool,  # noqa: FBT001 - what Hypothesis draws
) -> None:
    """However the records fall into batches, the files are the same."""
    with TemporaryDirectory() as together, TemporaryDirectory() as one_by_one:
        for folder, pieces in (
            (Path(together), batches),
            (Path(one_by_one), [[record] for batch in batches for record in batch]),
        ):
            file = RotatingFile(
                str(folder / "app.log"),
                encoding=encoding,
                max_bytes=max_bytes,
                backup_count=backup_count,
                report=unexpected,
                close_first=close_first,
            )
            for batch in pieces:
                queue = ["".encode(encoding) + record for record in batch]
                file.write(queue)
                assert queue == []
            file.close()
            assert file.records == sum(map(len, batches))
        found = contents(Path(together))
        found.setdefault("app.log", b"")
        assert found == {"app.log": b"", **contents(Path(one_by_one))}


def unexpected(error: Exception) -> None:
    """Fail: no rotation was to go wrong."""
    raise AssertionError from error


@settings(max_examples=80)
@given(
    batches=st.lists(
        st.lists(st.text("abc", min_size=1, max_size=12), min_size=1, max_size=8), max_size=6
    ),
    max_bytes=st.sampled_from([0, 30]),
    faults=st.lists(st.sampled_from([None, "short", "full", "torn"]), max_size=40),
    moved=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_faults_lose_double_and_tear_nothing(
    batches: list[list[str]],
    max_bytes: int,
    faults: list[str | None],
    moved: bool,  # noqa: FBT001 - what Hypothesis draws
    encoding: str,
) -> None:
    """Short writes and a full disk leave every record whole, once, in order, after retries."""
    coming: Iterator[str | None] = iter(faults)
    real = os.write

    def write(fd: int, data: bytes) -> int:
        fault = next(coming, None)
        if fault == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if fault in {"short", "torn"}:
            return real(fd, bytes(data[: max(1, len(data) // 2)]))
        return real(fd, data)

    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        folder = Path(name)
        file = RotatingFile(
            str(folder / "app.log"),
            encoding=encoding,
            max_bytes=max_bytes,
            backup_count=100,
            report=unexpected,
        )
        number = 0
        for batch in batches:
            queue = [f"{line}\n".encode(encoding) for line in batch]
            while True:
                try:
                    file.write(queue)
                except OSError:
                    if moved:  # what was started there is written whole elsewhere
                        number += 1
                        (folder / "app.log").rename(folder / f"moved.{number}")
                    continue
                break
        file.close()
        lines: list[str] = []
        prefix = "".encode(encoding)
        for path in oldest_first(folder):
            text = path.read_bytes()
            assert text.startswith(prefix) or not text or moved
            lines += text.removeprefix(prefix).decode(errors="replace").splitlines(keepends=True)
        expected = [f"{line}\n" for batch in batches for line in batch]
        if moved:
            whole = [line for line in lines if line.endswith("\n")]
            assert sorted(whole) == sorted(expected)
        else:
            assert lines == expected
        assert file.records == len(expected)


def oldest_first(folder: Path) -> list[Path]:
    """Return the files in the order in which they were started."""

    def age(path: Path) -> tuple[int, int]:
        kind, _, number = path.name.rpartition(".")
        if kind == "moved":
            return 0, int(number)
        return (1, -int(number)) if number.isdigit() else (2, 0)

    return sorted(folder.iterdir(), key=age)
