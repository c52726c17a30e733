"""The state of an emitter and its counts so far, for the monitor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS

if TYPE_CHECKING:
    from mtaio.events._registry import Tally

__all__ = ["EmitterStatistics", "EventStatistics", "counts_of"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatistics:
    """The counts of the events of one name."""

    emitted: int = field(metadata=COUNTER)
    """Events emitted."""
    handled: int = field(metadata=COUNTER)
    """Times a handler returned, a stream took the event, or a `wait_for` was waiting for it."""
    failed: int = field(metadata=COUNTER)
    """Times a handler raised an error, or a stream with ``overflow="raise"`` was full."""
    dropped: int = field(metadata=COUNTER)
    """Events dropped by a full stream, and those of `emit_nowait` that were not delivered."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterStatistics:
    """The state of an `EventEmitter`, and what it has done so far."""

    listeners: int = field(metadata=GAUGE)
    """Handlers registered, counted once for each name or pattern."""
    streams: int = field(metadata=GAUGE)
    """Streams open."""
    wait_fors: int = field(metadata=GAUGE)
    """Calls of `wait_for` in progress."""
    waiting: int = field(metadata=GAUGE)
    """Emits that wait for space in a stream."""
    pending: int = field(metadata=GAUGE)
    """Events of `emit_nowait` not yet delivered, including the one being delivered."""
    max_pending: int | None = field(metadata=LIMIT)
    """The most events of `emit_nowait` that wait, besides the one being delivered; None for no
    limit."""
    max_names: int | None = field(metadata=LIMIT)
    """The most names in ``names``; None for no limit."""
    emitted: int = field(metadata=COUNTER)
    """Events emitted, of all names."""
    handled: int = field(metadata=COUNTER)
    """As in `EventStatistics`, of all names."""
    failed: int = field(metadata=COUNTER)
    """As in `EventStatistics`, of all names."""
    dropped: int = field(metadata=COUNTER)
    """As in `EventStatistics`, of all names."""
    rejected: int = field(metadata=COUNTER)
    """Events that `emit_nowait` refused because ``max_pending`` were waiting."""
    handler_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long calls of handlers took; None before ``record_durations()``."""
    names: Mapping[str, EventStatistics] = field(metadata=COUNTER | {"label": "event"})
    """The counts of the names emitted most recently, at most ``max_names``."""
    other: EventStatistics = field(metadata=COUNTER)
    """The counts of all other names together."""


def counts_of(tally: Tally) -> EventStatistics:
    """Return the counters of one name, or of all others, as they are now."""
    return EventStatistics(
        emitted=tally.emitted, handled=tally.handled, failed=tally.failed, dropped=tally.dropped
    )
