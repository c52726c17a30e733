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
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType

__all__ = ["Window", "code_of", "frame_of", "links", "locals_of"]

_MOST: Final = 2_000
"""How many links there are at most: more than Python lets coroutines be nested."""


class Window:
    """An awaitable that shows, in ``behind``, what it drives."""

    __slots__ = ("behind",)

    behind: Any


def links(awaitable: object) -> list[Any]:
    """
    Return the chain of awaits, the outermost first.

    Its last link is what is waited for in the end: on asyncio a future, or the task itself that is
    awaited; on trio the generator that yields to the scheduler.
    """
    found: list[Any] = []
    while awaitable is not None and len(found) < _MOST:
        found.append(awaitable)
        awaitable = _next(awaitable)
    return found


def code_of(link: Any) -> CodeType | None:
    """Return the code of a link, which makes no frame; None if it has none."""
    kind = type(link)
    if kind is CoroutineType:
        code: CodeType | None = link.cr_code
        return code
    for _, _, name in _ATTRIBUTES:
        if hasattr(link, name):
            code = getattr(link, name)
            return code
    return None


def frame_of(link: Any) -> FrameType | None:
    """Return the frame of a link; None if it has none, or has ended."""
    for name, _, _ in _ATTRIBUTES:
        if hasattr(link, name):
            frame: FrameType | None = getattr(link, name)
            return frame
    return None


if sys.version_info >= (3, 13):

    def locals_of(frame: FrameType) -> Mapping[str, Any]:
        """Return the variables of a frame of ours or of a library, by their names."""
        return frame.f_locals  # a view

else:

    def locals_of(frame: FrameType) -> Mapping[str, Any]:
        """Return the variables of a frame of ours or of a library, by their names."""
        # The frame keeps the dict that it makes: what is in there would live as long as the frame,
        # although its code has let go of it. No frame that we look at has called locals().
        kept = frame.f_locals
        found = dict(kept)
        kept.clear()
        return found


_ATTRIBUTES: Final = (
    ("cr_frame", "cr_await", "cr_code"),
    ("gi_frame", "gi_yieldfrom", "gi_code"),
    ("ag_frame", "ag_await", "ag_code"),
)

_HIDING: Final = {
    "FutureIter",  # whose future comes first
    "anext_awaitable",
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
}
"""Python's types that hide what they drive from Python, but not from the garbage collector."""

_DRIVERS: Final = {"take_items": "driver", "_resumed": "send", "_watched": "steps"}
"""Generators of ours that drive a coroutine by hand, and the variable that leads to it."""


def _next(link: Any) -> object:
    """Return what a link awaits."""
    kind = type(link)
    if kind is CoroutineType:
        return link.cr_await
    if kind is GeneratorType:
        return link.gi_yieldfrom or _driven(link)
    if kind is AsyncGeneratorType:
        return link.ag_await
    if kind.__name__ in _HIDING:
        return next(filter(_leads_on, gc.get_referents(link)), None)
    if isinstance(link, Window):
        return link.behind
    for _, name, _ in _ATTRIBUTES:  # of compiled coroutines
        if hasattr(link, name):
            return getattr(link, name)
    return None


def _driven(link: GeneratorType[Any, Any, Any]) -> object:
    """Return what one of our generators drives by hand; None if it is none of them."""
    name = _DRIVERS.get(link.gi_code.co_name)
    frame = None if name is None else link.gi_frame
    if name is None or frame is None or not frame.f_globals["__name__"].startswith("mtaio."):
        return None
    driven = locals_of(frame).get(name)
    send = driven.args[0] if hasattr(driven, "args") else driven  # partial(run, coroutine.send)
    return getattr(send, "__self__", driven)


def _leads_on(referent: object) -> bool:
    kind = type(referent)
    return (
        kind.__name__ in _HIDING
        or any(hasattr(referent, name) for name, _, _ in _ATTRIBUTES)
        or hasattr(referent, "get_loop")  # a future
    )
