"""What the package refuses: the value, the reason and the way out, before a file is made."""

from __future__ import annotations

import logging
import math
import re
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.logging import AsyncFileHandler, JsonFormatter, RedactingFilter

if TYPE_CHECKING:
    from pathlib import Path

    from tests.logging.tools import Logbook

Handler, Json, Redacting = AsyncFileHandler, JsonFormatter, RedactingFilter
PATTERN = re.compile("x")


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (Handler, {"max_bytes": -1}, ValueError, r"max_bytes=-1 is less than 0"),
        (Handler, {"max_bytes": 1.5}, TypeError, r"max_bytes=1.5 is a float, not an int"),
        (Handler, {"backup_count": -1}, ValueError, r"backup_count=-1 is less than 0"),
        (Handler, {"backup_count": True}, TypeError, r"backup_count=True is a bool"),
        (Handler, {"max_pending": 0}, ValueError, r"max_pending=0 is less than 1"),
        (Handler, {"keep_room": -1}, ValueError, r"keep_room=-1 is less than 0"),
        (Handler, {"overflow": "raise"}, ValueError, r"overflow='raise' is unknown. Pass o"),
        (Handler, {"mode": "r"}, ValueError, r"mode='r' is unknown. Pass one of 'a', 'w', 'x'"),
        (Handler, {"keep_level": "LOUD"}, ValueError, r"keep_level='LOUD' is not a level. Pa"),
        (Handler, {"keep_level": None}, TypeError, r"keep_level=None is a NoneType, not an i"),
        (Handler, {"encoding": "klingon"}, ValueError, r"encoding='klingon' cannot be used: "),
        (Handler, {"encoding": "hex"}, ValueError, r"encoding='hex' cannot be used: 'hex' is"),
        (Handler, {"encoding": None}, TypeError, r"encoding=None is a NoneType, not a str"),
        (Handler, {"errors": "shrug"}, ValueError, r"errors='shrug' is unknown"),
        (Handler, {"errors": 1}, TypeError, r"errors=1 is an int, not a str"),
        (Handler, {"errors": "no\0ne"}, ValueError, r"errors='no\\x00ne' is unknown"),
        (Handler, {"on_error": 1}, TypeError, r"on_error=1 is an int, which is not callable"),
        (Handler, {"filename": 3}, TypeError, r"filename=3 is an int, not a path"),
        (Handler, {"filename": "a\0b"}, ValueError, r"filename='a\\x00b' contains a NUL"),
        (Json, {"fmt": "%(message)s"}, TypeError, r"fmt='%\(message\)s' has no meaning here"),
        (Json, {"datefmt": "%H"}, TypeError, r"datefmt='%H' has no meaning here"),
        (Json, {"fields": 3}, TypeError, r"fields=3 is not a mapping"),
        (Json, {"fields": {"time": 1, "level": 2}}, ValueError, r"fields has level, time, whi"),
        (Redacting, {"keys": "card"}, TypeError, r"keys='card' is a single str. Pass several"),
        (Redacting, {"keys": [3]}, TypeError, r"keys has 3, an int, not a str. Pass strings"),
        (Redacting, {"keys": [PATTERN]}, TypeError, r"keys has re.compile\('x'\), a Pattern, not"),
        (Redacting, {"keys": ["__"]}, ValueError, r"keys has '__', which has no letter and no dig"),
        (Redacting, {"patterns": [b"x"]}, TypeError, r"patterns has b'x', a bytes"),
        (Redacting, {"patterns": ["("]}, ValueError, r"patterns has '\(', which is not a regular"),
        (Redacting, {"patterns": [re.compile(b"x")]}, TypeError, r"patterns has .*, which is for "),
        (Redacting, {"mask": 3}, TypeError, r"mask=3 is an int, not a str"),
    ],
)
def test_argument_is_refused(
    tmp_path: Path, make: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A wrong argument is refused at once, by name, with ``delay`` and without."""
    needed = {"filename": tmp_path / "app.log", "delay": True} if make is AsyncFileHandler else {}
    for more in ({}, {"delay": False}) if make is AsyncFileHandler else ({},):
        with pytest.raises(error, match=f"^{message}"):
            make(**{**needed, **more, **options})
    assert list(tmp_path.iterdir()) == []


async def test_timeout_is_refused(book: Logbook) -> None:
    """A timeout that is negative, or not a number, is refused."""
    handler = book.open()
    for timeout in (-1, math.nan):
        with pytest.raises(ValueError, match=r"^timeout="):
            handler.flush(timeout)
    with pytest.raises(TypeError, match=r"^timeout='1' is a str, not a number"):
        await handler.aflush("1")  # type: ignore[arg-type]  # what is refused


def test_handler_whose_file_cannot_be_opened_is_not_registered(tmp_path: Path) -> None:
    """It is an error at once, with what to do, and leaves no half-made handler."""
    before = len(logging._handlerList)  # type: ignore[attr-defined]  # where shutdown finds them
    path = tmp_path / "missing" / "app.log"
    with pytest.raises(FileNotFoundError) as raised:
        AsyncFileHandler(path)
    (note,) = raised.value.__notes__
    assert note == (
        f"AsyncFileHandler opens its file when it is made. Make the folder {str(path.parent)!r} "
        f"first."
    )
    assert len(logging._handlerList) == before  # type: ignore[attr-defined]  # as above
