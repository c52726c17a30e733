"""What loads and who asks: a loader that counts, and tasks that ask for one key."""

# ruff: noqa: D102 - only __call__, which the class explains

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.cache import TTLCache
from mtaio.exceptions import CacheClosedError
from mtaio.testing import assert_quiescent, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BOTH = pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
GONE = "cancelled"
UNHASHABLE: Any = []

CALLER: ContextVar[int] = ContextVar("caller", default=-1)
"""The number of the caller for whom the running code runs."""


class Loader:
    """Takes a second, unless told otherwise, and counts."""

    def __init__(self, *, fail: bool = False, seconds: float = 1) -> None:
        self.started = 0
        self.ended = 0
        self.cancelled = 0
        self.leaders: list[int] = []
        self.fail = fail
        self.seconds = seconds

    async def __call__(self) -> str:
        self.started += 1
        number = self.started
        self.leaders.append(CALLER.get())
        try:
            await anyio.sleep(self.seconds)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        self.ended += 1
        if self.fail:
            msg = f"load {number}"
            raise LookupError(msg)
        return f"value {number}"


class Callers:
    """Tasks that ask for the same key, each in a scope of its own."""

    def __init__(self, cache: TTLCache[str], group: Any) -> None:
        self.cache = cache
        self.group = group
        self.scopes: list[anyio.CancelScope] = []
        self.answers: dict[int, object] = {}
        self.moments: dict[int, float] = {}

    async def ask(self, loader: Callable[[], Awaitable[str]], key: str = "key") -> int:
        """Start one more task that asks, and let it come to where it waits."""
        number = len(self.scopes)
        self.scopes.append(anyio.CancelScope())
        self.group.start_soon(self._ask, number, loader, key)
        await settle()
        return number

    async def _ask(self, number: int, loader: Callable[[], Awaitable[str]], key: str) -> None:
        CALLER.set(number)
        with self.scopes[number] as scope:
            try:
                self.answers[number] = await self.cache.get_or_set(key, loader)
            except (LookupError, CacheClosedError, RuntimeError) as error:
                self.answers[number] = error
        if scope.cancelled_caught:
            self.answers[number] = GONE
        self.moments[number] = anyio.current_time()


def in_both(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Run a test with a cache that is entered, and with one that is not."""

    async def tested(entered: bool, **given: Any) -> None:  # noqa: FBT001 - a parameter
        cache: TTLCache[str] = TTLCache(10)
        async with AsyncExitStack() as stack:
            if entered:
                await stack.enter_async_context(cache)
            await test(cache, **given)
        assert_quiescent(cache)

    tested.__doc__ = test.__doc__
    wrapped: Any = tested
    parameters = [*inspect.signature(test).parameters.values()][1:]
    first = inspect.Parameter("entered", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wrapped.__signature__ = inspect.Signature([first, *parameters])
    marked: Callable[..., Awaitable[None]] = BOTH(wrapped)
    return marked
