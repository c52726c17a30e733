"""
How values become bytes that other processes read.

Promise: nothing is unpickled unless the program asks for it, because whatever can write to the
server could then run code in every process that reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, final

from mtaio._internal import checks

__all__ = ["JSON", "Codec", "check_codec", "encoded"]

T = TypeVar("T")


@final
@dataclass(frozen=True)  # with slots, Codec[int](...) fails before Python 3.12
class Codec(Generic[T]):
    """
    A pair of functions that convert values to bytes and back.

    Example:
        ```python
        from datetime import date

        from mtaio.redis import Codec

        DATES = Codec(
            encode=date.isoformat,
            decode=lambda raw: date.fromisoformat(raw.decode()),
        )
        print(DATES.decode(b"2026-01-31"))
        ```
    """

    encode: Callable[[T], bytes | str]
    """Converts a value to what is stored; a str is stored as UTF-8."""
    decode: Callable[[bytes], T]
    """Converts the stored bytes back to the value."""


def check_codec(codec: object) -> None:
    """Raise ``TypeError`` if it is no codec."""
    if not isinstance(codec, Codec):
        msg = (
            f"codec={codec!r} is {checks.type_of(codec)}, not a Codec. Pass Codec(encode, decode), "
            f"or leave it out for JSON."
        )
        raise TypeError(msg)


def encoded(codec: Codec[T], value: T) -> bytes:
    """
    Return a value as bytes.

    Raises:
        TypeError: The codec returned neither bytes nor a str.
        Exception: What the codec raised.
    """
    raw: Any = codec.encode(value)
    if isinstance(raw, str):
        return raw.encode()
    if not isinstance(raw, bytes):
        msg = (
            f"codec={codec!r} encodes {value!r:.100} as {checks.type_of(raw)}. Pass a function "
            f"that returns bytes or a str."
        )
        raise TypeError(msg)
    return raw


def _dumps(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, for which JSON has escapes
        return json.dumps(value, separators=(",", ":")).encode()


JSON: Final[Codec[Any]] = Codec(encode=_dumps, decode=json.loads)
"""Any value that JSON can express. A tuple comes back as a list, and every dict key as a str."""
