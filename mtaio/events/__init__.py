"""
Events: an emitter does not know its listeners, and still gets their errors.

Promise: an emit returns when all its handlers have ended; neither their errors nor its cancellation
is lost; streams and queues are bounded, and count what did not fit.
"""

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
