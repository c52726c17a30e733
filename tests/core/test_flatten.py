"""Streams whose functions return several results: their elements, one by one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import Stream, TaskExecutor
from mtaio.testing import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


async def all_of(stream: Stream[Any]) -> list[Any]:
    """Return all results."""
    async with stream as results:
        return [result async for result in results]


async def several(number: int) -> list[tuple[int, int]]:
    """Return so many results; a smaller number takes longer."""
    await anyio.sleep(10 - number)
    return [(number, each) for each in range(number)]


def generate(number: int) -> Iterator[int]:
    """Yield so many results, in a thread."""
    assert threading.current_thread() is not threading.main_thread()
    yield from range(number)


async def test_elements_come_one_by_one() -> None:
    """In the order of the items or as those end; an item may have none."""
    expected = [(number, each) for number in range(4) for each in range(number)]
    stream = TaskExecutor().stream(several, range(4), flatten=True, ordered=True)
    assert await all_of(stream) == expected
    stream = TaskExecutor().stream(several, range(4), flatten=True)
    assert await all_of(stream) == sorted(expected, key=lambda pair: (-pair[0], pair[1]))


@pytest.mark.parametrize(
    ("result", "elements"),
    [
        ([1, None], [1, None]),
        ((1, 2), [1, 2]),
        (range(2), [0, 1]),
        ({3}, [3]),
        ({"a": 1}.values(), [1]),
        (["ab"], ["ab"]),
        ([], []),
        ([[1, 2], 3], [[1, 2], 3]),
    ],
    ids=["list", "tuple", "range", "set", "view", "texts", "empty", "nested"],
)
async def test_results_of_many_types(result: Any, elements: list[Any]) -> None:
    """Any iterable will do, and it is taken apart once."""

    async def give(_: int) -> Any:
        return result

    stream = TaskExecutor().stream(give, range(2), flatten=True)
    assert await all_of(stream) == [*elements, *elements]


@pytest.mark.parametrize("result", ["text", b"text", {"a": 1}, None, 1], ids=repr)
async def test_what_is_no_iterable_of_results(result: Any) -> None:
    """Text and mappings are refused like what cannot be iterated: it is the item's error."""

    async def give(item: int) -> Any:
        return result if item else [item]

    stream = TaskExecutor(1).stream(give, range(3), flatten=True, errors="return", ordered=True)
    zero, *errors = await all_of(stream)
    assert zero == 0
    for number, error in enumerate(errors, 1):
        assert type(error) is TypeError
        assert "give returned " in str(error)
        assert "flatten=True is for functions that return several results" in str(error)
        assert error.__notes__[0].startswith(f"in item {number}: ")


async def test_errors_come_alone() -> None:
    """Among the elements, or all at the end, as elsewhere."""

    async def odd(number: int) -> range:
        if number % 2:
            raise OSError(number)
        return range(number)

    executor = TaskExecutor(1)
    stream = executor.stream(odd, range(4), flatten=True, ordered=True, errors="return")
    assert [str(each) for each in await all_of(stream)] == ["1", "0", "1", "3"]
    async with executor.stream(odd, range(4), flatten=True, errors="collect") as elements:
        assert [await anext(elements), await anext(elements)] == [0, 1]
        with pytest.raises(ExceptionGroup):
            await anext(elements)


@pytest.mark.parametrize("ordered", [False, True])
async def test_an_item_counts_until_its_last_element_is_taken(*, ordered: bool) -> None:
    """So a consumer that falls behind holds the work back, however many elements there are."""
    executor = TaskExecutor()

    async def triple(number: int) -> list[int]:
        return [number] * 3

    stream = executor.stream(
        triple, range(9), flatten=True, ordered=ordered, limit=1, max_pending=1
    )
    async with stream as elements:
        started: list[int] = []
        async for _ in elements:
            await settle()
            started.append(executor.statistics().started)
    assert started == [2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9] + [9] * 6


async def test_each_consumer_that_waits_gets_an_element() -> None:
    """One that is slow with the first element holds up none that waits for the next."""
    seen: list[tuple[float, int]] = []

    async with TaskExecutor().stream(several, [2, 1], flatten=True) as elements:

        async def take() -> None:
            async for _, element in elements:
                seen.append((anyio.current_time(), element))
                await anyio.sleep(5)

        async with anyio.create_task_group() as group:
            group.start_soon(take)
            group.start_soon(take)
    assert seen == [(8, 0), (8, 1), (13, 0)]


async def test_a_generator_is_a_part_of_its_item() -> None:
    """Its code runs where the function is called, and what it raises is the item's error."""
    assert await all_of(TaskExecutor().stream(generate, [2, 0, 1], flatten=True, ordered=True)) == [
        0,
        1,
        0,
    ]

    async def broken(number: int) -> Iterator[int]:
        return (1 // (each - 1) for each in range(number))

    stream = TaskExecutor(1).stream(broken, [1, 2], flatten=True, errors="return")
    minus, error = await all_of(stream)
    assert minus == -1
    assert type(error) is ZeroDivisionError
    assert error.__notes__[0].startswith("in item 1: ")


async def test_functions_of_all_kinds() -> None:
    """In a pool, with batches, with two sources, with a plain one that returns an awaitable."""
    executor = TaskExecutor()
    with ThreadPoolExecutor(1) as pool:
        stream: Stream[Any] = executor.stream(
            generate, [1, 2], flatten=True, ordered=True, via=pool
        )
        assert await all_of(stream) == [0, 0, 1]

    async def reverse(batch: list[int]) -> list[int]:
        return batch[::-1]

    stream = executor.stream(reverse, range(5), batch=3, flatten=True, ordered=True)
    assert await all_of(stream) == [2, 1, 0, 4, 3]

    async def both(a: int, b: int) -> tuple[int, int]:
        return a, b

    assert await all_of(executor.stream(both, [1], [2], flatten=True)) == [1, 2]
    with pytest.warns(RuntimeWarning, match="is a plain function, so it was called in a worker"):
        assert await all_of(executor.stream(lambda x: reverse([x]), [1], flatten=True)) == [1]


async def test_a_list_that_is_used_again() -> None:
    """A function that empties the list it has returned gets no error, but loses elements."""
    kept: list[int] = [1, 2, 3]

    async def give(_: int) -> list[int]:
        return kept

    async with TaskExecutor().stream(give, [0], flatten=True) as elements:
        assert await anext(elements) == 1
        kept.clear()
        assert [element async for element in elements] == [2]


async def test_refusals() -> None:
    """What makes no sense together, or has no results to wait for."""
    call: Any = TaskExecutor().stream
    with pytest.raises(ValueError, match="outcomes=True gives one outcome for each item, and"):
        call(several, [], flatten=True, outcomes=True)

    async def forever(_: int) -> AsyncIterator[int]:
        yield 1

    with pytest.raises(
        TypeError, match=r"function, which flatten=True does not take\. Return a list"
    ):
        call(forever, [], flatten=True)
    with pytest.raises(TypeError, match="is a generator function"):
        call(generate, [])
