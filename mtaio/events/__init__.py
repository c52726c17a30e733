"""
Events: an emitter that waits for its handlers and gets their errors.

Promise: an emit returns when all its handlers have ended; neither their errors nor its cancellation
    is lost; streams and queues are bounded and count what they drop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.events._emitter import EventEmitter
    from mtaio.events._event import Event, EventKey, EventPriority
    from mtaio.events._stream import EventStream

__all__ = [
    "Event",
    "EventEmitter",
    "EventKey",
    "EventPriority",
    "EventStream",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.events._emitter": ("EventEmitter",),
            "mtaio.events._event": ("Event", "EventKey", "EventPriority"),
            "mtaio.events._stream": ("EventStream",),
        },
    )
