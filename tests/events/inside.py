"""Tests that hold for an emitter inside its block and outside of it."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.events import EventEmitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


def inside_and_outside(
    test: Callable[[EventEmitter], Awaitable[None]],
) -> Callable[[bool], Coroutine[Any, Any, None]]:
    """Run a test with an emitter that was not entered, and with one that was."""

    @pytest.mark.parametrize("entered", [False, True], ids=["outside", "inside"])
    @wraps(test)
    async def wrapper(entered: bool) -> None:  # noqa: FBT001 - pytest passes it
        emitter = EventEmitter()
        if not entered:
            await test(emitter)
            return
        async with emitter:
            await test(emitter)

    function: Any = wrapper
    function.__signature__ = inspect.signature(wrapper, follow_wrapped=False)
    return wrapper
