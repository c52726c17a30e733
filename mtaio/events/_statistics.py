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
    """Events a full stream did not keep, and those of `emit_nowait` that were never delivered."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterStatistics:
    """The state of an `EventEmitter`, and what it has done so far."""

    listeners: int = field(metadata=GAUGE)
    """Handlers registered, one for each name or pattern it is registered under."""
    streams: int = field(metadata=GAUGE)
    """Streams open."""
    wait_fors: int = field(metadata=GAUGE)
    """Calls of `wait_for` in progress."""
    waiting: int = field(metadata=GAUGE)
    """Emits that wait for space in a stream."""
    pending: int = field(metadata=GAUGE)
    """Events of `emit_nowait` not yet delivered, including the one being delivered."""
    max_pending: int | None = field(metadata=LIMIT)
    """How many events of `emit_nowait` may wait, besides the one being delivered; None for no
    limit."""
    max_names: int | None = field(metadata=LIMIT)
    """How many names are kept in ``names``; None for all."""
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
    """How long each call of a handler took, however it ended; None before
    ``record_durations()``."""
    names: Mapping[str, EventStatistics] = field(metadata=COUNTER | {"label": "event"})
    """The counters of each of the names emitted most recently, at most ``max_names``."""
    other: EventStatistics = field(metadata=COUNTER)
    """The counters of all other names together."""


def counts_of(tally: Tally) -> EventStatistics:
    """Return the counters of one name, or of all others, as they are now."""
    return EventStatistics(
        emitted=tally.emitted, handled=tally.handled, failed=tally.failed, dropped=tally.dropped
    )
