"""Names that other libraries have for what has another name here."""

from __future__ import annotations

from typing import Any

import pytest

from mtaio._internal.elsewhere import known_elsewhere_as


@known_elsewhere_as(pop="thing.take()", keys="list(thing)")
class Thing:
    """Has neither of these names."""

    __slots__ = ()


class Own(Thing):
    """Has both, of its own."""

    def __init__(self) -> None:
        self.keys = 3

    def pop(self) -> int:
        """Return a number."""
        return 2


@pytest.mark.parametrize("owner", [Thing(), Thing], ids=["object", "class"])
def test_hint(owner: Any) -> None:
    """What is used instead is in the message; to code that asks, the name is not there."""
    message = r"^'Thing' object has no attribute 'pop'\. Here it is thing\.take\(\)\.$"
    with pytest.raises(AttributeError, match=message):
        owner.pop()
    assert not hasattr(owner, "pop")
    assert getattr(owner, "keys", None) is None


def test_subclass() -> None:
    """A subclass may give these names a meaning."""
    own = Own()
    assert (own.keys, own.pop()) == (3, 2)
