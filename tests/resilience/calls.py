"""Calls through one part, without a pipeline around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from mtaio.resilience import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable

    from mtaio.resilience import Part


def through(part: Part) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return what calls a function of no arguments through a part."""

    async def innermost(call: Call) -> Any:
        return await call.fn(*call.args)

    run = part.wrap(innermost)

    async def call(fn: Callable[[], Awaitable[Any]], key: Hashable = None) -> Any:
        return await run(Call(fn, (), key=key))

    return call


async def succeed() -> str:
    """Answer at once."""
    return "answer"


async def fail() -> str:
    """Fail at once."""
    raise ConnectionError("nobody there")


class Sleeper:
    """
    A function whose calls last as long as they are told to, and note what happens to them.

    Args:
        *seconds: How long the calls last, one after another.
    """

    def __init__(self, *seconds: float) -> None:
        self._seconds = iter(seconds)
        self.begun: list[float] = []
        self.ended: list[str] = []

    @property
    def running(self) -> int:
        """Calls under way."""
        return len(self.begun) - len(self.ended)

    async def __call__(self) -> float:
        """Sleep, and return for how long; fail if that is negative."""
        mine = next(self._seconds)
        self.begun.append(anyio.current_time())
        how = "cancelled"
        try:
            await anyio.sleep(abs(mine))
            how = "failed" if mine < 0 else "answered"
        finally:
            self.ended.append(how)
        if mine < 0:
            msg = f"after {-mine} s"
            raise ConnectionError(msg)
        return mine
