"""
How the executor's calls look to a type checker.

Promise: an overload for async functions comes first, one for plain ones second, since mypy cannot
tell the two apart in one signature. The argument of a function with one source is checked; with
several sources, only its result is.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

if TYPE_CHECKING:
    from mtaio._internal.sentinel import Unset
    from mtaio.core._retry import Retry
    from mtaio.core._via import Via
    from mtaio.resources import RateLimiter

A = TypeVar("A")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")

Source = Iterable[A] | AsyncIterable[A]
"""What items come from: any iterable, sync or async."""

AnySource = Iterable[Any] | AsyncIterable[Any]

Job = Awaitable[T] | Callable[[], Awaitable[T]]
"""An awaitable, or an async function without arguments, called when its turn comes."""

Call = Job[T] | Callable[[], T]
"""The same, or a plain function, which a worker thread calls."""

Stop = Literal["raise", "collect"]
Return = Literal["return"]
Policy = Literal["raise", "collect", "return"]

Progress = Callable[[int, "int | None"], object]


class EachOptions(TypedDict, total=False):
    """The options of `map`, `for_each` and `stream`."""

    limit: int | None
    timeout: float | Unset | None
    rate: float | RateLimiter | None
    retry: int | Retry | None
    via: Via | None
    chunksize: int
    on_progress: Progress | None


class MapOptions(EachOptions, total=False):
    """The options of `map`."""

    ordered: bool


class StreamOptions(MapOptions, total=False):
    """The options of `stream`."""

    buffer: int | None
