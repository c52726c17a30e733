# --8<-- [start:first]
"""What a loader promises, at exact times and under many schedules."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest
from batchload import Loader

from mtaio.testing import Simulation, Victim, explore

pytestmark = pytest.mark.anyio


class Table:
    """The other side, which takes a second for each call and counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, list[str]]] = []
        self.at_work = 0

    async def load_many(self, keys: list[str]) -> dict[str, int]:
        """Return the length of each key, but none for those with "no"."""
        self.calls.append((anyio.current_time(), sorted(keys)))
        self.at_work += 1
        try:
            await anyio.sleep(1)
        finally:
            self.at_work -= 1
        if "bad" in keys:
            raise ConnectionError
        return {key: len(key) for key in keys if not key.startswith("no")}


async def load(
    loader: Loader[str, int], *keys: str
) -> dict[str, int | BaseException]:
    """Load all keys at once, each in a task of its own."""
    found: dict[str, int | BaseException] = {}

    async def one(key: str) -> None:
        try:
            found[key] = await loader.load(key)
        except (KeyError, ConnectionError) as error:
            found[key] = error

    async with anyio.create_task_group() as group:
        for key in keys:
            group.start_soon(one, key)
    return found


async def test_look_ups_of_one_moment_are_one_call(sim: Simulation) -> None:
    """All who ask within the window share a call; then values are kept."""
    table = Table()
    async with Loader(table.load_many, window=0.5) as loader:
        assert await load(loader, "a", "bb", "a") == {"a": 1, "bb": 2}
        assert sim.time() == 1.5
        assert await load(loader, "bb") == {"bb": 2}
    assert sim.time() == 1.5
    assert table.calls == [(0.5, ["a", "bb"])]
    # --8<-- [end:first]


async def test_full_batch_waits_for_nothing() -> None:
    """A full batch goes at once, and the next begins."""
    table = Table()
    async with Loader(table.load_many, window=0.5, max_batch=2) as loader:
        await load(loader, "a", "b", "c")
    assert [(at, len(keys)) for at, keys in table.calls] == [(0, 2), (0.5, 1)]


async def test_batch_grows_while_calls_are_in_progress() -> None:
    """While no further call may begin, new keys go into the next batch."""
    table = Table()
    loader = Loader(table.load_many, window=0.1, max_calls=1)
    async with loader, anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(load, loader, f"key {number}")
            await anyio.sleep(0.1)
    assert [len(keys) for _, keys in table.calls] == [1, 9]


async def test_missing_keys_and_failures() -> None:
    """A missing key is a KeyError; a call fails for all who wait for it."""
    table = Table()
    async with Loader(table.load_many) as loader:
        found = await load(loader, "a", "none")
        assert found["a"] == 1
        assert isinstance(found["none"], KeyError)
        found = await load(loader, "bad", "b")
        assert all(isinstance(each, ConnectionError) for each in found.values())
        assert await load(loader, "b") == {"b": 1}


async def test_look_up_nobody_waits_for_is_cancelled(sim: Simulation) -> None:
    """One of two waiters may give up; when both have, the call is cancelled."""
    table = Table()
    loader = Loader(table.load_many, window=0.0)

    async def give_up_after(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await loader.load("a")

    async with loader, anyio.create_task_group() as group:
        group.start_soon(give_up_after, 0.2)
        group.start_soon(give_up_after, 0.4)
        await anyio.sleep(0.3)
        assert table.at_work == 1
    assert (sim.time(), table.at_work) == (0.4, 0)


# --8<-- [start:schedules]
@explore()
async def test_every_schedule(sim: Simulation, victim: Victim) -> None:
    """Whatever runs first, and wherever one is cancelled, others get values."""
    table = Table()
    sim.always(lambda: table.at_work <= 2)
    async with Loader(table.load_many, max_batch=2, max_calls=2) as loader:

        async def impatient() -> None:
            await victim(loader.load, "a")

        async with anyio.create_task_group() as group:
            group.start_soon(impatient)
            assert await load(loader, "a", "b", "c") == {"a": 1, "b": 1, "c": 1}
    assert len({key for _, keys in table.calls for key in keys}) == 3
    # --8<-- [end:schedules]


def test_no_backend_is_imported() -> None:
    """Importing the library imports neither asyncio nor trio."""
    program = (
        "import sys, batchload; print({'asyncio', 'trio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
