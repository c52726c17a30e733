"""
The chain of awaits of a suspended task: from its coroutine to what that waits for in the end.

Promise: the chain leads through coroutines, generators, async generators, what Python hides, and
the coroutines that mtaio drives by hand, such as the items of an executor. Nothing is run, and
nothing raises: read from another thread while the task goes on, a chain is shorter, or mixed.
Cost: a tenth of a microsecond for each link. Nothing is noted while nobody looks.
"""

from __future__ import annotations

import gc
import sys
from types import CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

__all__ = ["Window", "code_of", "frame_of", "links", "next_of", "variables"]

_MOST: Final = 2_000
"""How many links there are at most: more than Python lets coroutines be nested."""


class Window:
    """An awaitable that shows, in ``behind``, what it drives."""

    __slots__ = ("behind",)

    behind: Any


def links(awaitable: Any) -> list[Any]:
    """
    Return the chain of awaits, the outermost first: what has code.

    Its last link may be without: what is waited for in the end, on asyncio a future or a task. On
    trio that is the generator that yields to the scheduler.
    """
    found: list[Any] = []
    for _ in range(_MOST):
        kind = type(awaitable)
        if kind is CoroutineType:
            found.append(awaitable)
            awaitable = awaitable.cr_await
        elif kind is GeneratorType:
            found.append(awaitable)
            awaitable = awaitable.gi_yieldfrom or _driven(awaitable)
        elif awaitable is None:
            break
        else:
            if kind.__name__ not in _HIDING and not isinstance(awaitable, Window):
                found.append(awaitable)
            awaitable = next_of(awaitable)
    return found


def next_of(awaitable: Any) -> Any:
    """Return what is awaited by what is neither a coroutine of Python's nor a generator."""
    kind = type(awaitable)
    if kind.__name__ in _HIDING:
        return next(filter(_leads_on, gc.get_referents(awaitable)), None)
    if isinstance(awaitable, Window):
        return awaitable.behind
    for _, name, _ in _ATTRIBUTES:
        if hasattr(kind, name):
            return getattr(awaitable, name)
    return None


def code_of(link: Any) -> CodeType | None:
    """Return the code of a link, which makes no frame; None if it has none."""
    for _, next_name, name in _ATTRIBUTES:
        if hasattr(type(link), next_name):
            code: CodeType | None = getattr(link, name, None)
            return code
    return None


def frame_of(link: Any) -> FrameType | None:
    """Return the frame of a link; None if it has none, or has ended."""
    for name, next_name, _ in _ATTRIBUTES:
        if hasattr(type(link), next_name):  # a compiled coroutine may have no frame
            frame: FrameType | None = getattr(link, name, None)
            return frame
    return None


def variables(frame: FrameType, names: Iterable[str]) -> dict[str, Any]:
    """
    Return variables of a frame of ours or of a library; those that are not set are left out.

    Up to Python 3.12 ``f_locals`` is a dict that the frame keeps, so that what is in there would
    live as long as the frame, although its code has let go of it: it is emptied. No frame that we
    look at has called ``locals()``, which would return that dict.
    """
    kept = frame.f_locals
    found = {name: kept[name] for name in names if name in kept}
    if sys.version_info < (3, 13):
        kept.clear()
    return found


_ATTRIBUTES: Final = (
    ("cr_frame", "cr_await", "cr_code"),
    ("gi_frame", "gi_yieldfrom", "gi_code"),
    ("ag_frame", "ag_await", "ag_code"),
)

_HIDING: Final = {
    "FutureIter",
    "anext_awaitable",
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
}
"""Python's types that hide what they drive from Python, but not from the garbage collector."""

_DRIVERS: Final = {"take_items": "driver", "_resumed": "send", "_watched": "steps"}
"""Generators of ours that drive a coroutine by hand, and the variable that leads to it."""


def _driven(link: GeneratorType[Any, Any, Any]) -> object:
    """Return what one of our generators drives by hand; None if it is none of them."""
    name = _DRIVERS.get(link.gi_code.co_name)
    frame = None if name is None else link.gi_frame
    if name is None or frame is None or not frame.f_globals["__name__"].startswith("mtaio."):
        return None
    driven = variables(frame, (name,)).get(name)
    send = driven.args[0] if hasattr(driven, "args") else driven  # partial(run, coroutine.send)
    return getattr(send, "__self__", driven)


def _leads_on(referent: object) -> bool:
    kind = type(referent)
    return (
        hasattr(kind, "get_loop")  # a future
        or kind.__name__ in _HIDING
        or any(hasattr(kind, name) for _, name, _ in _ATTRIBUTES)
    )
