"""What counts as a function, and how it is called and named."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import anyio

from mtaio._internal.callables import is_async, name_of
from mtaio.core import TaskExecutor
from mtaio.core._compose import in_loop

if TYPE_CHECKING:
    from collections.abc import Generator


class Later:
    """Is an awaitable but not a coroutine."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __await__(self) -> Generator[Any, Any, int]:
        yield from anyio.sleep(1).__await__()
        return self.x


async def native(x: int) -> int:
    """Be an async function."""
    return x


class Call:
    """Is async to call."""

    async def __call__(self, x: int) -> int:
        """Be called."""
        return x


def test_what_is_async() -> None:
    """Async functions and objects with an async __call__, also in partials, and nothing else."""
    for fn in (native, Call(), Call().__call__, partial(native), partial(partial(Call()))):
        assert is_async(fn)
        assert in_loop(fn) is fn
    for plain in (len, Later, Call, lambda: native(1), partial(len)):
        assert not is_async(plain)


async def test_async_function_that_returns_another_awaitable() -> None:
    """What is only marked as async may return any awaitable: it gets a coroutine around it."""
    assert await in_loop(Later)(7) == 7
    assert anyio.current_time() == 1


async def test_mocks_of_async_functions_can_be_mapped() -> None:
    """An AsyncMock stands for an async function here too."""
    mock = AsyncMock(side_effect=[1, 2, ValueError("third")])
    results = await TaskExecutor(1).map(mock, [*"abc"], errors="return")
    assert results[:2] == [1, 2]
    assert isinstance(results[2], ValueError)
    assert [call.args for call in mock.await_args_list] == [("a",), ("b",), ("c",)]


def test_names() -> None:
    """A function goes by its name, anything else by that of its class."""
    assert name_of(native) == "native"
    assert name_of(partial(partial(native), 1)) == "native"
    assert name_of(Call()) == "Call"
    assert name_of(Call().__call__) == "Call.__call__"
    assert name_of(5) == "int"
