"""
How values become bytes that other processes read.

Promise: nothing is unpickled unless the program asks for it: what can write to the server could
otherwise run code in every process that reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JSON", "Codec"]

T = TypeVar("T")


@dataclass(frozen=True)  # with slots, Codec[int](...) fails before Python 3.12
class Codec(Generic[T]):
    """
    A pair of functions, one of which undoes the other.

    Example:
        ```python
        from datetime import date

        from mtaio.redis import Codec

        DATES = Codec(encode=date.isoformat, decode=lambda raw: date.fromisoformat(raw.decode()))
        print(DATES.decode(b"2026-01-31"))
        ```
    """

    encode: Callable[[T], bytes | str]
    """Called with a value, returns what is stored; a str is stored as UTF-8."""
    decode: Callable[[bytes], T]
    """Called with what is stored, returns the value."""


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


JSON: Final[Codec[Any]] = Codec(encode=_dumps, decode=json.loads)
"""What JSON can say, as it comes back from it: a tuple as a list, every key of a dict as a str."""
