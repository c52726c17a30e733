"""Snapshots of what objects count, read by the names of the fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import pytest

from mtaio._internal.statistics import COUNTER, GAUGE, snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorStatistics:
    """What went through a door."""

    opened: int = field(metadata=COUNTER)
    """Times it was opened."""
    waiting: int = field(metadata=GAUGE)
    """Those who wait."""


class Door:
    """Counts in a private attribute, and has others of the fields' names."""

    __slots__ = ("_opened",)

    def __init__(self) -> None:
        self._opened = 2

    @property
    def opened(self) -> bool:
        """Whether it has been opened: not the number."""
        return self._opened > 0

    @property
    def waiting(self) -> int:
        """Who waits, as somebody else sees it."""
        return 3

    def statistics(self) -> DoorStatistics:
        """Return the statistics."""
        return snapshot(DoorStatistics, self, waiting=0)


class Queue:
    """A part that counts in public, and has a method of a field's name."""

    __slots__ = ("_waiting", "waiting")

    def __init__(self) -> None:
        self.waiting = 5
        self._waiting = [self]

    def opened(self) -> int:
        """Return how often it was opened."""
        return len(self._waiting)


class Crowd(Queue):
    """Another, of the same names."""


def test_fields_are_read_by_name() -> None:
    """The object's own counts are private, those of a part public, and a method is none."""
    assert asdict(Door().statistics()) == {"opened": 2, "waiting": 0}
    taken = snapshot(DoorStatistics, Door(), Queue())
    assert asdict(taken) == {"opened": 2, "waiting": 5}


def test_given_fields_are_not_read() -> None:
    """What is passed counts, whatever the parts have."""
    assert snapshot(DoorStatistics, Door(), waiting=0) == DoorStatistics(opened=2, waiting=0)
    assert snapshot(DoorStatistics, Queue(), opened=1, waiting=0).waiting == 0


@pytest.mark.parametrize("parts", [(Door(),), (Door(), Queue(), Crowd())], ids=["none", "two"])
def test_field_of_no_one_part_must_be_given(parts: tuple[object, ...]) -> None:
    """A field that no part has, or more than one, is missing."""
    with pytest.raises(TypeError, match=r"missing 1 required keyword-only argument: 'waiting'$"):
        snapshot(DoorStatistics, *parts)
    assert snapshot(DoorStatistics, *parts, waiting=1).waiting == 1


def test_unknown_field_is_refused() -> None:
    """What is passed must be a field."""
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'closed'$"):
        snapshot(DoorStatistics, Door(), waiting=1, closed=1)


def test_snapshot_is_a_copy() -> None:
    """It does not change with what it was taken of."""
    queue = Queue()
    taken = snapshot(DoorStatistics, queue, opened=0)
    queue.waiting += 1
    assert taken.waiting == 5
