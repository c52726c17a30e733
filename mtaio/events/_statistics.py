"""Counters of an emitter: kept for each name, within a bound, and shown frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EmitterStatistics", "EventStatistics", "Tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatistics:
    """What became of the events of one name."""

    emitted: int
    """Events emitted."""
    handled: int
    """Times a handler returned, a stream took the event in, or a `wait_for` was waiting for it."""
    failed: int
    """Times a handler raised an error, or a stream with ``overflow="raise"`` was full."""
    dropped: int
    """Events a full stream did not keep, and those of `emit_soon` that were never delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterStatistics:
    """The state of an `EventEmitter`, and what it has done so far."""

    listeners: int
    """Handlers registered, one for each name or pattern it is registered under."""
    streams: int
    """Streams open."""
    waiters: int
    """Calls of `wait_for` in progress."""
    waiting: int
    """Emits that wait for room in a stream."""
    pending: int
    """Events of `emit_soon` not yet delivered, the one being delivered included."""
    emitted: int
    """Events emitted, of all names."""
    handled: int
    """As in `EventStatistics`, of all names."""
    failed: int
    """As in `EventStatistics`, of all names."""
    dropped: int
    """As in `EventStatistics`, of all names."""
    names: Mapping[str, EventStatistics]
    """For each of the names emitted most recently, ``max_names`` at most."""
    other: EventStatistics
    """For the names before those, all together."""


class Tally:
    """
    Counters that may still change.

    Invariant: whoever counts looks up the tally of its topic anew, because that of a topic that
    was forgotten is the one for all others.
    """

    __slots__ = ("dropped", "emitted", "failed", "handled")

    def __init__(self) -> None:
        self.emitted: int = 0
        self.handled: int = 0
        self.failed: int = 0
        self.dropped: int = 0

    def add(self, other: Tally) -> None:
        """Count what ``other`` has counted too."""
        self.emitted += other.emitted
        self.handled += other.handled
        self.failed += other.failed
        self.dropped += other.dropped

    def frozen(self) -> EventStatistics:
        """Return the counters as they are now."""
        return EventStatistics(
            emitted=self.emitted,
            handled=self.handled,
            failed=self.failed,
            dropped=self.dropped,
        )
