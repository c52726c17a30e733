"""
Events: an emitter does not know its listeners, and still gets their errors.

Promise: an emit returns when all its handlers have ended; neither their errors nor its cancellation
is lost; streams and queues are bounded, and count what did not fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.events._dispatch import ErrorPolicy
    from mtaio.events._emitter import EventEmitter, Register
    from mtaio.events._event import Event, EventKey, EventPriority
    from mtaio.events._statistics import EmitterStatistics, EventStatistics
    from mtaio.events._stream import EventStream, Overflow

__all__ = [
    "EmitterStatistics",
    "ErrorPolicy",
    "Event",
    "EventEmitter",
    "EventKey",
    "EventPriority",
    "EventStatistics",
    "EventStream",
    "Overflow",
    "Register",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.events._dispatch": ("ErrorPolicy",),
            "mtaio.events._emitter": ("EventEmitter", "Register"),
            "mtaio.events._event": ("Event", "EventKey", "EventPriority"),
            "mtaio.events._statistics": ("EmitterStatistics", "EventStatistics"),
            "mtaio.events._stream": ("EventStream", "Overflow"),
        },
    )
