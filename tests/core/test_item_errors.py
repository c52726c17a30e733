"""What becomes of items that fail: the three policies, notes, groups, and stray cancellation."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import re
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import anyio
import pytest

from mtaio.core import TaskExecutor
from mtaio.exceptions import StrayCancellationError
from mtaio.testing import run
from tests.core.strays import stray

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


async def odd_fails(x: int) -> int:
    """Fail at time ``x`` for odd ``x``."""
    await anyio.sleep(x)
    if x % 2:
        raise ValueError(x)
    return x


# ---- the policies ------------------------------------------------------------------------------


async def test_one_error_is_raised_bare() -> None:
    """anyio#141, anyio#641: one error is raised bare; siblings are cancelled and awaited."""
    ended = []

    async def work(x: int) -> int:
        try:
            return await odd_fails(x)
        finally:
            ended.append((x, anyio.current_time()))

    executor = TaskExecutor(4)
    with pytest.raises(ValueError, match=r"^1\b") as info:
        await executor.map(work, range(8))
    assert sorted(ended) == [(0, 0), (1, 1), (2, 1), (3, 1), (4, 1)]
    assert info.value.__notes__ == ["in item 1: test_one_error_is_raised_bare.<locals>.work(1)"]
    assert info.value.__cause__ is None
    assert info.value.__context__ is None
    statistics = executor.statistics()
    assert (statistics.succeeded, statistics.failed, statistics.cancelled) == (1, 1, 3)


async def test_errors_at_the_same_time_are_one_flat_group() -> None:
    """Several items that failed before all were stopped: a group, sorted by the items' numbers."""

    async def work(x: int) -> NoReturn:
        try:
            await anyio.sleep(3 - x)
        finally:
            raise ValueError(x)

    with pytest.raises(ExceptionGroup, match=r"^3 errors in one call") as info:
        await TaskExecutor().map(work, range(3))
    assert anyio.current_time() == 1
    assert [error.args for error in info.value.exceptions] == [(0,), (1,), (2,)]


async def test_collect_runs_everything_and_raises_one_flat_group() -> None:
    """aiometer#32: continue on error. All items run; their errors come in one group."""
    executor = TaskExecutor(2)
    with pytest.raises(ExceptionGroup, match=r"^3 errors in one call") as info:
        await executor.map(odd_fails, [5, 1, 2, 3], errors="collect")
    assert [error.args for error in info.value.exceptions] == [(5,), (1,), (3,)]
    assert [error.__notes__ for error in info.value.exceptions] == [
        ["in item 0: odd_fails(5)"],
        ["in item 1: odd_fails(1)"],
        ["in item 3: odd_fails(3)"],
    ]
    assert executor.statistics().failed == 3
    assert executor.statistics().succeeded == 1


async def test_return_puts_errors_among_the_results() -> None:
    """Errors stand where the results would be, with the note that they would have if raised."""
    results = await TaskExecutor(2).map(odd_fails, [2, 1, 3, 0], errors="return")
    assert results[0] == 2
    assert results[3] == 0
    first, second = results[1:3]
    assert isinstance(first, ValueError)
    assert first.args == (1,)
    assert first.__notes__ == ["in item 1: odd_fails(1)"]
    assert isinstance(second, ValueError)
    assert second.__notes__ == ["in item 2: odd_fails(3)"]


async def test_errors_in_a_stream_say_which_item() -> None:
    """So do those that a stream gives as results, in whatever order they come."""
    async with TaskExecutor(2).stream(pair_fails, [1, 2], [3, 4], errors="return") as results:
        notes = [each.__notes__ async for each in results if isinstance(each, ValueError)]
    assert sorted(notes) == [["in item 0: pair_fails(1, 3)"], ["in item 1: pair_fails(2, 4)"]]


async def pair_fails(one: int, other: int) -> int:
    """Fail."""
    raise ValueError(one + other)


async def test_group_of_an_item_is_one_error() -> None:
    """An ExceptionGroup that an item raised is not taken apart."""
    group = ExceptionGroup("mine", [ValueError(1), ValueError(2)])

    async def work(_: int) -> NoReturn:
        raise group

    with pytest.raises(ExceptionGroup, match=r"^mine") as info:
        await TaskExecutor(2).map(work, [1])
    assert info.value is group


@pytest.mark.parametrize("policy", ["raise", "collect", "return"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_goes_through(
    backend: str, policy: str, kind: type[BaseException]
) -> None:
    """KeyboardInterrupt and SystemExit are not failures of an item: they end everything."""
    executor = TaskExecutor(2)

    async def work(x: int) -> None:
        await anyio.sleep(x)
        raise kind(x)

    async def main() -> None:
        await executor.map(work, [1, 2], errors=policy)  # type: ignore[call-overload] # each

    with pytest.raises(kind, match=r"^1\b"):
        run(main, backend=backend)
    statistics = executor.statistics()
    assert statistics.in_flight == 0
    assert (statistics.failed, statistics.cancelled) == (1, 1)


# ---- notes -------------------------------------------------------------------------------------


async def fail(*args: object) -> NoReturn:
    """Fail, whatever the arguments."""
    raise ValueError(len(args))


class Hostile:
    """Has a broken __repr__."""

    def __repr__(self) -> str:
        raise RuntimeError


class Falsy(list[int]):
    """A function that is false."""

    async def __call__(self, x: int) -> NoReturn:
        """Fail."""
        raise ValueError(x)


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ("short", "'short'"),
        ("a token of a hundred characters " * 3, "'a token of a hund...undred characters '"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
        ({"key": range(5)}, "{'key': range(0, 5)}"),
    ],
    ids=["short", "long", "list", "dict"],
)
async def test_note_shows_the_argument_shortened(item: object, shown: str) -> None:
    """The note is one short line, whatever the argument is."""
    with pytest.raises(ValueError, match=r"^1\b") as info:
        await TaskExecutor(2).map(fail, [item])
    assert info.value.__notes__ == [f"in item 0: fail({shown})"]


async def test_note_shows_that_an_argument_is_a_huge_number() -> None:
    """A number that Python refuses to write out has a place-holder, which depends on Python."""
    with pytest.raises(ValueError, match=r"^1\b") as info:
        await TaskExecutor(2).map(fail, [10**5000])
    assert re.fullmatch(r"in item 0: fail\(<int.{0,70}>\)", info.value.__notes__[0])


async def test_note_survives_a_broken_repr() -> None:
    """An argument that cannot be shown must not hide the error."""
    with pytest.raises(ValueError, match=r"^1\b") as info:
        await TaskExecutor(2).map(fail, [Hostile()])
    assert info.value.__notes__[0].startswith("in item 0: fail(<Hostile instance at 0x")


async def test_note_shows_each_of_several_arguments() -> None:
    """With several sources the note lists what came from each."""
    with pytest.raises(ValueError, match=r"^2\b") as info:
        await TaskExecutor(2).map(partial(fail), [1], ["b"])
    assert info.value.__notes__ == ["in item 0: fail(1, 'b')"]


async def test_note_names_a_function_that_is_false() -> None:
    """A callable object that happens to be empty is named all the same."""
    with pytest.raises(ValueError, match=r"^1\b") as info:
        await TaskExecutor(2).map(Falsy(), [1])
    assert info.value.__notes__ == ["in item 0: Falsy(1)"]


@pytest.mark.parametrize("retry", [1, 2])
async def test_error_that_takes_no_note_is_raised_without(retry: int) -> None:
    """A frozen dataclass can be an exception, but cannot be changed."""

    @dataclasses.dataclass(frozen=True)
    class FrozenError(Exception):
        x: int

    async def work(x: int) -> NoReturn:
        raise FrozenError(x)

    with pytest.raises(FrozenError) as info:
        await TaskExecutor(2).map(work, [1], retry=retry)
    assert info.value.x == 1
    assert not hasattr(info.value, "__notes__")


async def test_raised_error_leaves_no_cycle_behind() -> None:
    """An error that was dealt with is freed at once, and with it what its frames hold."""

    class TracedError(Exception):
        pass

    async def work(_: int) -> NoReturn:
        await anyio.sleep(1)
        raise TracedError

    async def call() -> weakref.ref[TracedError]:
        try:
            await TaskExecutor(2).map(work, [1])
        except TracedError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        assert (await call())() is None
    finally:
        gc.enable()


# ---- stray cancellation ------------------------------------------------------------------------


async def test_stray_cancellation_is_a_failure_of_its_item() -> None:
    """An item that raises the backend's cancellation unasked does not end the others in silence."""

    async def work(x: int) -> int:
        await anyio.sleep(x)
        if x == 1:
            stray()
        return x

    executor = TaskExecutor(4)
    results = await executor.map(work, range(4), errors="return")
    assert [results[0], *results[2:]] == [0, 2, 3]
    assert isinstance(results[1], StrayCancellationError)
    assert isinstance(results[1].__cause__, anyio.get_cancelled_exc_class())
    with pytest.raises(
        StrayCancellationError, match=r"^test_stray.*work raised Cancelled\w* although nothing here"
    ):
        await executor.map(work, range(4))
    assert executor.statistics().failed == 2


async def test_stray_cancellation_next_to_errors_is_left_out() -> None:
    """In a group that an item raised, its errors count and the cancellation does not."""

    async def work(_: int) -> NoReturn:
        errors: list[BaseException] = [ValueError(1)]
        try:
            stray()
        except BaseException as error:  # noqa: BLE001 - put into the group
            errors.append(error)
        raise BaseExceptionGroup("mixed", errors)

    (result,) = await TaskExecutor(2).map(work, [1], errors="return")
    assert isinstance(result, ExceptionGroup)
    assert [type(error) for error in result.exceptions] == [ValueError]


async def test_interrupt_with_cancellation_goes_through() -> None:
    """A group that holds more than Exceptions is not an item's failure."""

    async def work(_: int) -> NoReturn:
        raise BaseExceptionGroup("both", [ValueError(1), GeneratorExit()])

    with pytest.raises(BaseExceptionGroup, match=r"^both") as info:
        await TaskExecutor(2).map(work, [1], errors="return")
    assert [type(error) for error in info.value.exceptions] == [ValueError, GeneratorExit]


def this_task() -> asyncio.Task[object]:
    """Return the asyncio task that runs."""
    task = asyncio.current_task()
    assert task is not None
    return task


def test_item_that_cancels_its_own_task() -> None:
    """It fails alone, and the next items run in a task that is not marked as cancelled."""

    async def work(x: int) -> int:
        if x == 1:
            this_task().cancel()
        await anyio.sleep(1)
        assert not this_task().cancelling()
        return x

    async def main() -> None:
        executor = TaskExecutor(1)
        results = await executor.map(work, range(4), errors="return", timeout=5)
        assert [results[0], *results[2:]] == [0, 2, 3]
        assert isinstance(results[1], StrayCancellationError)
        assert executor.statistics().in_flight == 0

    run(main, backend="asyncio")


def test_item_that_awaits_a_cancelled_future() -> None:
    """Awaiting what was cancelled elsewhere is a failure of that item."""

    async def work(x: int) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(x)
        if x == 1:
            future = asyncio.ensure_future(asyncio.sleep(9, x))
            future.cancel()
        return await future

    async def main() -> None:
        results = await TaskExecutor(2).map(work, range(3), errors="return")
        assert [results[0], results[2]] == [0, 2]
        assert isinstance(results[1], StrayCancellationError)

    run(main, backend="asyncio")


def test_timeout_of_an_item_that_was_cancelled_natively() -> None:
    """An item that swallowed a Task.cancel() still times out, and as a timeout."""

    async def work(_: int) -> None:
        this_task().cancel()
        with suppress(asyncio.CancelledError):
            await anyio.sleep(1)
        await anyio.sleep(10)

    async def main() -> None:
        with pytest.raises(
            TimeoutError, match=r"^test_timeout.*work did not end within timeout=2 s\n"
        ):
            await TaskExecutor(1).map(work, [1], timeout=2)
        assert anyio.current_time() == 2

    run(main, backend="asyncio")


def test_task_cancelled_outside_any_item() -> None:
    """A cancellation that hits no item cannot be put down to one: the call says so and stops."""

    async def last(x: int) -> int:
        if x == 1:
            this_task().cancel()
        return x

    async def main() -> None:
        executor = TaskExecutor(2)
        with pytest.raises(
            StrayCancellationError, match=r"^a task of this call was cancelled, but"
        ):
            await executor.map(last, range(64))
        assert executor.statistics().in_flight == 0
        assert await executor.map(odd_fails, [2]) == [2]

    run(main, backend="asyncio")


# ---- errors that belong to no item -------------------------------------------------------------


async def test_error_of_a_source_at_its_first_item() -> None:
    """A source may fail before it gave anything."""

    def source() -> Iterator[int]:
        yield from ()
        raise LookupError(0)

    with pytest.raises(LookupError, match=r"^0\b"):
        await TaskExecutor(2).map(odd_fails, source())


@pytest.mark.parametrize("after", [0, 2])
async def test_error_of_an_async_source(after: int) -> None:
    """An async generator that fails, at once or later, is not different."""

    async def source() -> AsyncIterator[int]:
        for _ in range(after):
            yield 4
        await anyio.sleep(1)
        raise LookupError(after)

    executor = TaskExecutor(4)
    with pytest.raises(LookupError, match=f"^{after}$"):
        await executor.map(odd_fails, source(), errors="return")
    assert anyio.current_time() == 1
    assert executor.statistics().cancelled == after


async def test_stray_cancellation_of_an_async_source() -> None:
    """A source that raises cancellation unasked must not be taken for one that has ended."""

    async def source() -> AsyncIterator[int]:
        yield 0
        stray()

    with pytest.raises(StrayCancellationError, match=r"^test_stray.*source raised Cancelled"):
        await TaskExecutor(2).map(odd_fails, source())


async def test_stray_cancellation_of_a_sync_source() -> None:
    """The same goes for a plain generator."""

    def source() -> Iterator[int]:
        yield 0
        stray()

    with pytest.raises(StrayCancellationError, match=r"^a task of this call was cancelled, but"):
        await TaskExecutor(2).map(odd_fails, source())
