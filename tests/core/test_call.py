"""What counts as a function, and how it is called and named."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import anyio
import pytest

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
    results = await TaskExecutor(1).map(mock, "abc", errors="return")
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


async def test_shortened_values() -> None:
    """The note on an error shows the item in one short line, or else by its type."""

    class Hostile(dict[str, int]):
        def __repr__(self) -> str:
            raise RuntimeError

    async def fail(_: object) -> None:
        raise ValueError

    values = ["ab" * 50, {"key": range(5)}, Hostile(), 10**5000]  # too long for Python to print
    with pytest.raises(ExceptionGroup) as caught:
        await TaskExecutor().map(fail, values, errors="collect")
    notes = [error.__notes__[0].partition("fail(")[2] for error in caught.value.exceptions]
    assert len(notes[0]) == 41
    assert notes[0].startswith("'abababababab")
    assert "..." in notes[0]
    assert notes[1] == "{'key': range(0, 5)})"
    assert notes[2].startswith("<Hostile instance at 0x")
    assert notes[3].startswith("<int")
