"""
What `AsyncFileHandler` is given, looked at before anything is opened.

Promise: what makes no sense is refused by name, with the way out.
"""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["absolute", "check_encoding", "later_in_a_file", "one_of"]


def absolute(filename: str | os.PathLike[str], called: str = "filename") -> Path:
    try:
        path = Path(filename).absolute()
    except TypeError:
        msg = (
            f"{called}={filename!r} is a {type(filename).__name__}, not a path. Pass a str or an "
            f"os.PathLike."
        )
        raise TypeError(msg) from None
    try:
        named = os.fsencode(path)
    except ValueError as error:
        msg = f"{called}={filename!r} cannot be used: {error}. Pass what a file can be called."
        raise ValueError(msg) from None
    if b"\0" in named:
        msg = f"{called}={filename!r} has a NUL, which no path may have. Leave it out."
        raise ValueError(msg)
    return path


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        msg = f"{name}={value!r} is unknown. Pass one of {', '.join(map(repr, known))}."
        raise ValueError(msg)


def check_encoding(encoding: str, errors: str) -> None:
    for name, value in (("encoding", encoding), ("errors", errors)):
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
            msg = f"{name}={value!r} is a {type(value).__name__}, not a str. Pass its name."
            raise TypeError(msg)
    try:
        codecs.lookup_error(errors)
    except (LookupError, ValueError):
        msg = f"errors={errors!r} is unknown. Pass 'strict', 'replace', 'backslashreplace', …"
        raise ValueError(msg) from None
    try:
        "\n".encode(encoding)
    except (LookupError, ValueError) as error:
        msg = f"encoding={encoding!r} cannot be used: {error}. Pass 'utf-8', or another's name."
        raise ValueError(msg) from None


def later_in_a_file(encoding: str) -> Callable[[bytes], bytes] | None:
    """
    Return what makes of an encoded text what it is in the middle of a file, None for no change.

    The text layer of the standard library sets the state of its encoder to 0 there, which leaves
    byte order marks and designations out, or has them put in again.
    """
    mark = "".encode(encoding)
    if mark:
        return lambda record: record[len(mark) :]
    encoder = codecs.getincrementalencoder(encoding)()
    encoder.setstate(0)
    if encoder.encode("a\n") == "a\n".encode(encoding):
        return None

    def later(record: bytes) -> bytes:
        encoder.setstate(0)
        return encoder.encode(record.decode(encoding))

    return later
