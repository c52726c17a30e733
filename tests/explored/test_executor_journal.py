"""Journals under many schedules: what was paid for is recorded, and nothing is paid for twice."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from mtaio.core import Journal, TaskExecutor
from mtaio.core import _journal as journals
from mtaio.testing import assert_quiescent, explore
from tests.explored.searches import SEEDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.testing import Victim


async def run_here(work: Callable[[], Any], *, limiter: object) -> Any:
    """Do what a thread would do, at a moment that the schedule decides."""
    del limiter
    await checkpoint()
    result = work()
    await cancel_shielded_checkpoint()
    return result


@pytest.mark.parametrize("kind", ["map", "batches", "stream"])
@explore(seeds=SEEDS // 2, exhaustive=1, max_runs=100_000)
async def test_two_runs(victim: Victim, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run calls what the first has not finished, and has every result in its place."""
    monkeypatch.setattr(journals, "to_thread", SimpleNamespace(run_sync=run_here))
    executor, journal = TaskExecutor(2), None
    calls: list[int] = []
    finished: list[int] = []

    async def work(number: int) -> int:
        calls.append(number)
        await checkpoint()
        finished.append(number)
        return 2 * number

    async def together(numbers: list[int]) -> list[int]:
        return [await work(number) for number in numbers]

    async def run(numbers: list[int]) -> list[int]:
        if kind == "map":
            return await executor.map(work, numbers, journal=journal)
        if kind == "batches":
            batches = await executor.map(together, numbers, journal=journal, batch=2)
            return [result for batch in batches for result in batch]
        call = partial(executor.stream, work, numbers, journal=journal, ordered=True)
        async with call() as results:
            return [result async for result in results]

    with TemporaryDirectory() as folder:
        journal = Journal[int](Path(folder) / "out.jsonl")
        await victim(run, [1, 2, 1])
        recorded = dict(journal.entries())
        if kind != "batches":  # where one may be cancelled between its items
            assert set(recorded) == set(finished)
        assert len(set(finished)) == len(finished) or kind == "batches"
        calls.clear()
        assert await run([1, 2, 1, 3]) == [2, 4, 2, 6]
        assert sorted(calls) == sorted({1, 2, 3} - set(recorded))
    assert_quiescent(executor)
