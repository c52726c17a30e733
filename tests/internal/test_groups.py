"""Leaving a task group by hand: what it makes of its end is returned."""

from __future__ import annotations

from typing import NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import groups


async def fail(error: Exception) -> NoReturn:
    """Raise, once it has begun."""
    await checkpoint()
    raise error


async def test_nothing_happened() -> None:
    """A group that ends well has raised nothing."""
    group = anyio.create_task_group()
    await group.__aenter__()
    group.start_soon(checkpoint)
    assert await groups.leave(group, None) == (False, None, ())


async def test_errors_of_tasks() -> None:
    """What a task raises comes in the group that it was put in, and by itself."""
    group = anyio.create_task_group()
    await group.__aenter__()
    error = LookupError()
    group.start_soon(fail, error)
    end = await groups.leave(group, None)
    assert not end.swallowed
    assert isinstance(end.raised, ExceptionGroup)
    assert end.errors == end.raised.exceptions == (error,)


async def test_own_cancellation_is_swallowed() -> None:
    """The cancellation of the group's scope ends with the group."""
    group = anyio.create_task_group()
    await group.__aenter__()
    group.cancel_scope.cancel()
    with pytest.raises(anyio.get_cancelled_exc_class()) as caught:
        await checkpoint()
    assert await groups.leave(group, caught.value) == (True, None, ())


async def test_cancellation_from_outside_goes_on() -> None:
    """A cancellation that is not the group's is what it raises, for the caller to raise again."""
    with anyio.CancelScope() as scope:
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(anyio.sleep_forever)
        scope.cancel()
        end = await groups.leave(group, None)
        assert isinstance(end.raised, anyio.get_cancelled_exc_class())
        assert end.errors == ()
        raise end.raised
    assert scope.cancelled_caught
