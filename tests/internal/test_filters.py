"""Which exceptions ``on=`` means, and which groups of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtaio._internal.filters import accepts, errors_in

if TYPE_CHECKING:
    from mtaio._internal.filters import Filter


class OwnGroup(ExceptionGroup[Exception]):
    """A group that can be named."""


LOST, REFUSED, WRONG = ConnectionResetError(), ConnectionRefusedError(), ValueError()
BOTH = ExceptionGroup("", [LOST, ExceptionGroup("", [REFUSED])])
MIXED = ExceptionGroup("", [LOST, ExceptionGroup("", [WRONG])])
OWN = OwnGroup("", [WRONG])


@pytest.mark.parametrize(
    ("on", "accepted"),
    [
        (ConnectionError, [LOST, REFUSED, BOTH]),
        (ConnectionResetError, [LOST]),
        ((ConnectionResetError, ValueError), [LOST, WRONG, MIXED, OWN]),
        (Exception, [LOST, REFUSED, WRONG, BOTH, MIXED, OWN]),
        (OwnGroup, [OWN]),
        (ExceptionGroup, [BOTH, MIXED, OWN]),
        (lambda error: isinstance(error, ConnectionError), [LOST, REFUSED, BOTH]),
        (lambda error: isinstance(error, ExceptionGroup), []),
    ],
    ids=["class", "subclass", "tuple", "all", "named group", "groups", "function", "sees no group"],
)
def test_a_group_counts_if_each_error_in_it_does(on: Filter, accepted: list[Exception]) -> None:
    """However deep they are, unless the group itself is named; a function is called with each."""
    assert [error for error in (LOST, REFUSED, WRONG, BOTH, MIXED, OWN) if accepts(on, error)] == (
        accepted
    )


def test_errors_in_a_group() -> None:
    """They come one by one, and what is no group comes by itself."""
    assert [*errors_in(MIXED)] == [LOST, WRONG]
    assert [*errors_in(LOST)] == [LOST]
