"""Hypothesis draws the input, and the order in which tasks take their steps."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from mtaio.testing import Schedule, run
from mtaio.testing.schedules import schedules


async def in_order(
    fn: Callable[[int], Awaitable[int]], items: list[int]
) -> list[int]:
    """Call ``fn`` concurrently, and return results in the items' order."""
    found: dict[int, int] = {}

    async def call(position: int, item: int) -> None:
        found[position] = await fn(item)

    async with anyio.create_task_group() as group:
        for position, item in enumerate(items):
            group.start_soon(call, position, item)
    return [found[position] for position in range(len(items))]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(items=st.lists(st.integers(0, 3), max_size=4), schedule=schedules())
def test_results_are_in_order(
    backend: str, items: list[int], schedule: Schedule
) -> None:
    async def double(item: int) -> int:
        for _ in range(item):
            await checkpoint()
        return 2 * item

    results = run(in_order, double, items, backend=backend, schedule=schedule)
    assert results == [2 * item for item in items]
