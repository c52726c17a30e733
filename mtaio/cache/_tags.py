"""
Which entries carry which tags.

Promise: a tag that no entry carries, and a key that has none, cost nothing.
Cost: about two hundred bytes for each tag of each entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["Tags", "check_tags"]


class Tags:
    """The tags of the entries of one cache; false while there are none."""

    # Invariant: key is in _keys[tag] exactly if tag is in _tags[key], and no value is empty.
    __slots__ = ("_keys", "_tags")

    def __init__(self) -> None:
        self._tags: dict[Hashable, frozenset[Hashable]] = {}
        self._keys: dict[Hashable, dict[Hashable, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._tags)

    def put(self, key: Hashable, tags: frozenset[Hashable]) -> None:
        """Let ``key``, which has none, carry ``tags``, of which there is one at least."""
        self._tags[key] = tags
        for tag in tags:
            self._keys.setdefault(tag, {})[key] = None

    def forget(self, key: Hashable) -> None:
        """Take its tags from ``key``, if it has any."""
        for tag in self._tags.pop(key, ()):
            keys = self._keys[tag]
            del keys[key]
            if not keys:
                del self._keys[tag]

    def keys(self, tag: Hashable) -> list[Hashable]:
        """Return the keys that carry ``tag``."""
        return list(self._keys.get(tag, ()))

    def clear(self) -> None:
        """Forget everything."""
        self._tags.clear()
        self._keys.clear()


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
