"""How a task ended: cancelled, hit by a stray cancellation, or failed."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from mtaio._internal.cancellation import (
    Cancelled,
    Failure,
    Stray,
    classify,
    failure_in,
    is_cancellation,
    is_cancelled,
    without_cancellation,
)


async def cancellation() -> BaseException:
    """Return the backend's cancellation, as a task gets it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(anyio.get_cancelled_exc_class()) as caught:
            await anyio.sleep(1)
    return caught.value


async def test_cancelled_and_stray() -> None:
    """In a cancelled scope it is a cancellation; elsewhere the same error is a stray one."""
    kept = await cancellation()
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert is_cancelled()
        assert is_cancellation(kept)
        assert isinstance(classify(kept), Cancelled)
        assert failure_in(kept, "the loader") is None
        with pytest.raises(type(kept)):
            await anyio.lowlevel.checkpoint()
    assert not is_cancelled()
    ended = classify(kept)
    assert isinstance(ended, Stray)
    assert ended.error is kept
    failure = failure_in(kept, "the loader")
    assert failure is not None
    assert failure.__cause__ is kept
    assert str(failure).startswith(f"the loader raised {type(kept).__name__} although nothing here")


async def test_failures() -> None:
    """An error is a failure, and so is what is left of a group without the cancellation in it."""
    kept = await cancellation()
    error, other = LookupError(), KeyboardInterrupt()
    each: BaseException
    for each in (error, other, ExceptionGroup("", [error]), BaseExceptionGroup("", [other])):
        assert without_cancellation(each) is each
        ended = classify(each)
        assert isinstance(ended, Failure)
        assert ended.error is each
        assert failure_in(each, "the loader") is each
    deep = BaseExceptionGroup("", [other, BaseExceptionGroup("", [kept])])
    rest = failure_in(deep, "the loader")
    assert isinstance(rest, BaseExceptionGroup)
    assert rest.exceptions == (other,)
    assert isinstance(classify(BaseExceptionGroup("", [kept])), Stray)


def test_without_a_loop() -> None:
    """Where no event loop runs nothing is a cancellation."""
    assert not is_cancellation(KeyboardInterrupt())
