"""
Which entries carry which tags.

Promise: a tag that no entry carries, and an entry that has none, cost nothing.
Cost: about two hundred bytes for each tag of each entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mtaio.cache._entry import Entry

__all__ = ["NO_MEMBERSHIP", "Tag", "Tags"]


class Tag:
    """
    One tag, and the entries that carry it.

    Args:
        name: What the user calls it.
    """

    __slots__ = ("entries", "name")

    def __init__(self, name: Hashable) -> None:
        self.name: Hashable = name
        self.entries: dict[Entry, None] = {}


NO_MEMBERSHIP: Final[tuple[Tag, ...]] = ()


class Tags:
    """The tags of the entries of one cache."""

    # Invariants:
    # - entry is in tag.entries exactly if tag is in of_entries[entry], and neither is ever empty;
    # - a name is compared and hashed before anything changes: its own code may raise.
    __slots__ = ("_by_name", "of_entries")

    def __init__(self) -> None:
        self.of_entries: dict[Entry, tuple[Tag, ...]] = {}
        """The tags of each entry that has any."""
        self._by_name: dict[Hashable, Tag] = {}

    def membership(self, names: frozenset[Hashable]) -> tuple[Tag, ...]:
        """Return the tags for `put`, which has to come before any other change."""
        by_name = self._by_name
        return tuple([by_name.get(each) or by_name.setdefault(each, Tag(each)) for each in names])

    def put(self, entry: Entry, tags: tuple[Tag, ...]) -> None:
        """Let an entry carry these tags, and no other."""
        before = self.of_entries.pop(entry, NO_MEMBERSHIP)
        if tags:
            self.of_entries[entry] = tags
            for tag in tags:
                tag.entries[entry] = None
        for tag in before:
            if tag not in tags:
                del tag.entries[entry]
        for tag in before:
            if not tag.entries:
                self._by_name.pop(tag.name, None)

    def forget(self, entry: Entry) -> None:
        """Take its tags from an entry, if it has any."""
        self.put(entry, NO_MEMBERSHIP)

    def entries(self, name: Hashable) -> list[Entry]:
        """Return the entries that carry a tag."""
        tag = self._by_name.get(name)
        return [] if tag is None else [*tag.entries]

    def clear(self) -> None:
        """Forget everything."""
        self.of_entries.clear()
        self._by_name.clear()
