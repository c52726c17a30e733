"""For which simulated socket a task waits: found by looking at what its innermost frames hold."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from mtaio.testing._network._endpoint import Endpoint

__all__ = ["awaited"]


def awaited(frames: Iterable[FrameType], find: Callable[[int], Endpoint | None]) -> Endpoint | None:
    """
    Return the simulated socket that a task waits for, None if it is not to be seen.

    Args:
        frames: The frames of the task, innermost first.
        find: Returns what a descriptor stands for, if that is simulated.
    """
    for frame in frames:
        for value in frame.f_locals.values():
            for candidate in _candidates(value):
                endpoint = find(candidate)
                if endpoint is not None:
                    return endpoint
    return None


def _candidates(value: object) -> Iterator[int]:
    """Yield the descriptors of the sockets that an object is, or has as an attribute."""
    yield from _descriptor(value)
    try:
        attributes = list(vars(value).values())
    except TypeError:  # it has slots
        return
    for each in attributes:
        yield from _descriptor(each)


def _descriptor(value: Any) -> Iterator[int]:
    """Yield the descriptor of a socket, of trio's wrapper of one, or of a transport of asyncio."""
    if isinstance(value, socket.socket):
        yield value.fileno()
        return
    module = type(value).__module__
    if module == "trio._socket":
        yield value.fileno()
    elif module.startswith(("asyncio", "uvloop")) and hasattr(value, "get_extra_info"):
        inner = value.get_extra_info("socket")
        yield -1 if inner is None else inner.fileno()
