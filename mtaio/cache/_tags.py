"""
Which entries carry which tags.

Promise: a tag that no entry carries, and an entry that has none, cost nothing.
Cost: about two hundred bytes for each tag of each entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from mtaio.cache._entry import Entry

__all__ = ["NO_MARKS", "Mark", "Tags", "check_tags"]


class Mark:
    """
    One tag, and who carries it.

    Args:
        tag: The tag.
    """

    __slots__ = ("entries", "tag")

    def __init__(self, tag: Hashable) -> None:
        self.tag: Hashable = tag
        self.entries: dict[Entry, None] = {}


NO_MARKS: Final[tuple[Mark, ...]] = ()


class Tags:
    """The tags of the entries of one cache."""

    # Invariants:
    # - entry is in mark.entries exactly if mark is in marked[entry], and neither is ever empty;
    # - a tag is compared and hashed before anything changes: its own code may raise.
    __slots__ = ("_marks", "marked")

    def __init__(self) -> None:
        self.marked: dict[Entry, tuple[Mark, ...]] = {}
        """The marks of each entry that has any."""
        self._marks: dict[Hashable, Mark] = {}

    def marks_of(self, tags: frozenset[Hashable]) -> tuple[Mark, ...]:
        """Return the marks for `put`, which has to come before any other change."""
        return tuple(
            [self._marks.get(tag) or self._marks.setdefault(tag, Mark(tag)) for tag in tags]
        )

    def put(self, entry: Entry, marks: tuple[Mark, ...]) -> None:
        """Let an entry carry these marks, and no other."""
        before = self.marked.pop(entry, NO_MARKS)
        if marks:
            self.marked[entry] = marks
            for mark in marks:
                mark.entries[entry] = None
        for mark in before:
            if mark not in marks:
                del mark.entries[entry]
        for mark in before:
            if not mark.entries:
                self._marks.pop(mark.tag, None)

    def forget(self, entry: Entry) -> None:
        """Take its marks from an entry, if it has any."""
        self.put(entry, NO_MARKS)

    def entries(self, tag: Hashable) -> list[Entry]:
        """Return the entries that carry ``tag``."""
        mark = self._marks.get(tag)
        return [] if mark is None else [*mark.entries]

    def clear(self) -> None:
        """Forget everything."""
        self.marked.clear()
        self._marks.clear()


def check_tags(tags: object) -> frozenset[Hashable]:
    """Return ``tags`` as a set, or raise ``TypeError``."""
    way_out = 'Pass them as a set: tags={"user:7"}.'
    if isinstance(tags, str | bytes):
        msg = f"tags={tags!r} is a {type(tags).__name__}, not a set of tags. {way_out}"
        raise TypeError(msg)
    try:
        return frozenset(cast("Iterable[Hashable]", tags))
    except TypeError as error:
        msg = f"tags={tags!r} is no set of hashable tags: {error}. {way_out}"
        raise TypeError(msg) from error
