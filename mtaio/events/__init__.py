"""
Events: who emits need not know who listens, and still learns how it went.

Promise: an emit returns when all its handlers have ended; their errors and its cancellation are
seen; streams and queues have a bound, and count what did not fit.
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
