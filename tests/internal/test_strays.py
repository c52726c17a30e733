"""A cancellation that nobody meant for the task it turns up in."""

from __future__ import annotations

import anyio
import pytest

from mtaio._internal.strays import (
    holds_cancellation,
    is_cancellation,
    is_cancelled,
    is_stray,
    stray,
    without_cancellation,
)


async def test_ordered_and_stray() -> None:
    """Within a cancelled scope it was ordered; elsewhere the same class is a stray."""
    cancelled = anyio.get_cancelled_exc_class()
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert is_cancelled()
        with pytest.raises(cancelled) as caught:
            await anyio.sleep(1)
        kept = caught.value
        assert is_cancellation(kept)
        assert not is_stray(kept)
    assert not is_cancelled()
    assert is_stray(kept)
    assert not is_stray(ValueError())
    failure = stray(kept, "the loader")
    assert failure.__cause__ is kept
    assert str(failure).startswith(f"the loader raised {type(kept).__name__} although nothing here")


def test_without_a_loop() -> None:
    """Where no event loop runs nothing is a cancellation."""
    assert not is_cancellation(KeyboardInterrupt())


async def test_cancellation_among_errors() -> None:
    """In a group, however deep, the cancellation is found, and can be taken out."""
    cancelled = anyio.get_cancelled_exc_class()
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(cancelled) as caught:
            await anyio.sleep(1)
        kept = caught.value
    error, other = LookupError(), KeyboardInterrupt()
    deep = BaseExceptionGroup("", [other, BaseExceptionGroup("", [kept])])
    for holder in (kept, deep):
        assert holds_cancellation(holder)
    for none in (error, other, ExceptionGroup("", [error]), BaseExceptionGroup("", [other])):
        assert not holds_cancellation(none)
        rest = without_cancellation(none)
        assert type(rest) is type(none)
        assert str(rest) == str(none)
    assert without_cancellation(kept) is None
    assert without_cancellation(BaseExceptionGroup("", [kept])) is None
    rest = without_cancellation(deep)
    assert isinstance(rest, BaseExceptionGroup)
    assert rest.exceptions == (other,)
