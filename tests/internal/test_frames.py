"""Where code stands: chains of awaits, blocks, variables, and whose code it is."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

import pytest

import mtaio
from mtaio._internal.frames import (
    Window,
    await_chain,
    frames_here,
    innermost_own,
    local,
    opened_blocks,
    place,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Generator


def names(awaitable: object) -> list[str]:
    """Return the names of the functions of a chain of awaits."""
    frames = await_chain(awaitable).frames
    return [each if isinstance(each, str) else each.f_code.co_name for each in frames]


class Suspends:
    """Suspends once."""

    def __await__(self) -> Generator[None]:
        yield


class Wrapped:
    """Awaits by the wrapper of a coroutine."""

    def __await__(self) -> Generator[Any, Any, None]:
        return through_window().__await__()


async def through_window() -> None:
    """Await what drives another coroutine by hand."""

    class Driver(Window):
        def __await__(self) -> Generator[None]:
            return self  # type: ignore[return-value] # it is its own iterator

        def __iter__(self) -> Driver:
            return self

        def __next__(self) -> None:
            self.behind.send(None)

    driver = Driver()
    driver.behind = innermost()
    await cast("Awaitable[None]", driver)


async def innermost() -> None:
    """Suspend."""
    await Suspends()


async def items() -> AsyncGenerator[int]:
    """Suspend in an async generator."""
    async for each in more():
        yield each


async def more() -> AsyncGenerator[int]:
    """Suspend in one that `anext` drives."""
    yield await anext(last(), 0)


async def last() -> AsyncGenerator[int]:
    """Suspend in a wrapper."""
    await Wrapped()
    yield 1


async def outermost() -> None:
    """Iterate."""
    async for _ in items():
        pass


def test_chain_of_awaits() -> None:
    """It leads through all that Python can await, also what hides that from Python."""
    coroutine = outermost()
    coroutine.send(None)
    assert names(coroutine) == [
        *("outermost", "items", "more", "last", "through_window", "innermost", "__await__")
    ]
    coroutine.close()
    assert names(coroutine) == []
    assert names(object()) == []


class Compiled:
    """A coroutine without a frame, as compilers make them."""

    __slots__ = ("__qualname__", "cr_await", "cr_frame")

    def __init__(self, name: str, awaited: object = None) -> None:
        self.__qualname__ = name
        self.cr_await = awaited


def test_compiled_coroutines() -> None:
    """Where there is no frame, there is a name; a circle ends."""
    assert names(Compiled("fetch", Compiled("read"))) == ["fetch", "read"]
    circle = Compiled("round")
    circle.cr_await = circle
    assert set(names(circle)) == {"round"}


def test_end_of_a_chain() -> None:
    """It ends with what has no code, such as a future."""

    async def main() -> bool:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await future

        coroutine = wait()
        coroutine.send(None)
        try:
            return future in gc.get_referents(await_chain(coroutine).end)
        finally:
            coroutine.close()

    assert asyncio.run(main())
    end = iter(())
    assert await_chain(end).end is end


class Held:
    """What a variable holds."""


def test_a_look_at_variables_keeps_nothing() -> None:
    """What a variable held is gone when its code lets go of it; one that is not set is None."""

    async def code() -> None:
        held = Held()
        refs.append(ref(held))
        await Suspends()
        del held
        await Suspends()

    refs: list[ref[Held]] = []
    coroutine = code()
    coroutine.send(None)
    frame = await_chain(coroutine).frames[0]
    assert not isinstance(frame, str)
    assert local(frame, "held") is refs[0]()
    assert local(frame, "other") is None
    coroutine.send(None)
    assert refs[0]() is None
    coroutine.close()


def test_the_variables_of_a_module_stay() -> None:
    """To look at one in a frame that has its namespace itself changes nothing."""
    scope: dict[str, Any] = {}
    exec("import sys; value = 1; frame = sys._getframe()", scope)  # noqa: S102 - a module's frame
    assert local(scope["frame"], "value") == 1
    assert scope["value"] == 1


def blocks(frame: FrameType) -> list[tuple[str, int]]:
    """Return the blocks around where a frame is, by the lines of its function from 0."""
    code = frame.f_code
    found = opened_blocks(code, frame.f_lasti)
    return [(name, (line or 0) - code.co_firstlineno) for name, line in found]


def test_blocks_that_were_opened() -> None:
    """Each that gives a name is known by this and its line, while code is inside."""

    def nested() -> None:
        with nullcontext(1) as outer:
            with nullcontext(), nullcontext(2) as shared:
                assert [shared for _ in "a"] == [2]  # a closure, up to Python 3.11
                try:
                    with nullcontext(3) as inner:
                        seen.append(blocks(frames_here()[0]))
                    int("no")
                except ValueError:
                    seen.append(blocks(frames_here()[0]))
            with nullcontext(4) as again:
                seen.append(blocks(frames_here()[0]))
        seen.append(blocks(frames_here()[0]))
        assert (outer, inner, again) == (1, 3, 4)

    seen: list[list[tuple[str, int]]] = []
    nested()
    around = [("shared", 2), ("outer", 1)]
    assert seen == [[("inner", 5), *around], around, [("again", 10), ("outer", 1)], []]


def test_a_block_whose_variable_is_used_at_once() -> None:
    """Where Python makes one instruction of two, the variable is the first one's."""

    def code() -> int:
        other = 1
        with nullcontext(nullcontext(2)) as value, value as inner:
            assert blocks(frames_here()[0]) == [("inner", 2), ("value", 2)]
        return other + inner

    assert code() == 3


def test_place() -> None:
    """A place is a file, a line and a qualified name; the line is 0 where there is none."""
    code = outermost.__code__
    assert place(code, 7) == f"{__file__}:7 in outermost"
    assert place(code, None) == f"{__file__}:0 in outermost"


STANDARD = threading.__file__
LIBRARY = "/venv/lib/site-packages/lib.py"


@pytest.mark.parametrize(
    ("files", "index"),
    [
        ([STANDARD, LIBRARY, "/app/own.py", LIBRARY], 2),
        ([STANDARD, LIBRARY, "/usr/lib/dist-packages/b.py"], 1),
        ([STANDARD, "<frozen importlib>"], 0),
        ([mtaio.__file__, "/app/own.py"], 1),
        (["<attrs generated methods lib.Task>", LIBRARY, "/app/mine.py"], 2),
        (["<attrs generated methods lib.Task>", LIBRARY], 0),
        ([LIBRARY, "<string>"], 1),
        (["<frozen runpy>", LIBRARY], 1),
    ],
    ids=range(8),
)
def test_innermost_place(files: list[str], index: int) -> None:
    """The user's own code counts first, then a library, then any, each time the innermost."""
    assert innermost_own(files) == index
