"""The pipeline: every file once, in order, under its limits."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

import mtaio.testing
from mtaio.app._demo import BATCH_FILES, Failed, Hashed, TreeHasher

if TYPE_CHECKING:
    from mtaio.app._demo import Outcome


def make_files(folder: Path, number: int) -> list[Hashed]:
    """Make so many small files in a few folders; return what they should come to, in order."""
    made = []
    for index in range(number):
        path = folder / f"{index % 7}" / f"{index:05}"
        path.parent.mkdir(exist_ok=True)
        content = str(index).encode()
        path.write_bytes(content)
        made.append(Hashed(str(path), len(content), hashlib.sha256(content).hexdigest()))
    return sorted(made, key=lambda hashed: os.fsencode(hashed.path))


async def hash_all(hasher: TreeHasher, path: object) -> list[list[Outcome]]:
    """Return the outcomes as they came, batch by batch."""
    async with hasher.stream(str(path)) as batches:
        return [batch async for batch in batches]


def flat(batches: list[list[Outcome]]) -> list[Outcome]:
    """Return the outcomes alone."""
    return [outcome for batch in batches for outcome in batch]


@pytest.mark.parametrize(("limit", "files"), [(1, 100), (8, 2000)])
async def test_many_small_files(folder: Path, limit: int, files: int) -> None:
    """Two thousand files have their digests, in order, from few calls within the limit."""
    expected = make_files(folder, files)
    hasher = TreeHasher(limit=limit)
    batches = await hash_all(hasher, folder)
    assert flat(batches) == expected
    assert {len(batch) for batch in batches[:-1]} == {BATCH_FILES}
    assert 1 <= hasher.statistics().in_flight_peak <= limit


async def test_large_files_do_not_share_a_call(folder: Path) -> None:
    """A file that fills a batch ends it, so that others can be read beside it."""
    names = ["a", "b", "c", "d"]
    for name in names:
        with (folder / name).open("wb") as file:
            file.truncate(3 << 20 if name in "bc" else 10)
    batches = await hash_all(TreeHasher(limit=4), ".")
    sizes = [
        [outcome.size for outcome in batch if isinstance(outcome, Hashed)] for batch in batches
    ]
    assert sizes == [[10, 3 << 20], [3 << 20], [10]]


async def test_empty_tree(folder: Path) -> None:
    """Where there is nothing there are no batches."""
    assert await hash_all(TreeHasher(limit=4), folder) == []


async def test_single_file(folder: Path) -> None:
    """A path may be a file."""
    (expected,) = make_files(folder, 1)
    assert flat(await hash_all(TreeHasher(limit=4), expected.path)) == [expected]


async def test_missing_path(folder: Path) -> None:
    """A path at which there is nothing is one failure."""
    (outcome,) = flat(await hash_all(TreeHasher(limit=4), folder / "none"))
    assert isinstance(outcome, Failed)
    assert outcome.path == str(folder / "none")


async def test_rate_spaces_files_evenly(folder: Path) -> None:
    """With a rate each file is begun in its turn."""
    expected = make_files(folder, 10)
    hasher = TreeHasher(limit=1, rate=2)
    times = []
    async with hasher.stream(str(folder)) as batches:
        async for batch in batches:
            times.append(anyio.current_time())
            assert batch == [expected.pop(0)]
    assert times == [number * 0.5 for number in range(10)]


async def test_rate_is_for_files_alone(folder: Path) -> None:
    """What is not hashed waits for no turn."""
    hasher = TreeHasher(limit=1, rate=1)
    for _ in range(3):
        await hash_all(hasher, folder / "none")
    assert anyio.current_time() == 0


async def test_file_that_vanishes_under_way(folder: Path) -> None:
    """A file that is removed after it was found fails, and the rest is hashed."""
    expected: list[Outcome] = [*make_files(folder, 5)]
    gone = expected[3].path
    expected[3] = Failed(gone, "No such file or directory")
    outcomes: list[Outcome] = []
    async with TreeHasher(limit=1, rate=1).stream(str(folder)) as batches:
        async for batch in batches:
            await anyio.Path(gone).unlink(missing_ok=True)
            outcomes += batch
    assert outcomes == expected


async def test_looking_and_hashing_share_the_limit(folder: Path) -> None:
    """With one slot the search waits while files are hashed, and the other way round."""
    make_files(folder, 300)
    hasher = TreeHasher(limit=1)
    await hash_all(hasher, folder)
    done = hasher.statistics()
    assert done.in_flight_peak == 1
    assert done.slot_waits > 0


async def test_leaving_early_ends_the_work(folder: Path) -> None:
    """Leaving the block cancels all that was under way, and it can be entered again."""
    expected = make_files(folder, 300)
    hasher = TreeHasher(limit=2, rate=10)
    async with hasher.stream(str(folder)) as batches:
        async for batch in batches:
            assert batch == expected[:1]
            break
    assert anyio.current_time() == 0
    assert flat(await hash_all(hasher, expected[5].path)) == [expected[5]]


def test_one_hasher_serves_one_loop_after_another(backend: str, folder: Path) -> None:
    """A hasher may be made at module level and used by one event loop after another."""
    expected = make_files(folder, 100)
    hasher = TreeHasher(limit=2)
    for _ in range(2):
        assert flat(mtaio.testing.run(hash_all, hasher, folder, backend=backend)) == expected


def test_docstring_program_runs(
    backend: Literal["asyncio", "trio"], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program in the class's docstring prints the digest of each file."""
    expected = make_files(folder, 3)
    fence = re.search(r"```python\n(.*?)```", TreeHasher.__doc__ or "", re.DOTALL)
    assert fence is not None
    program = ModuleType("docstring_example")
    exec(compile(dedent(fence[1]), "docstring", "exec"), vars(program))  # noqa: S102 - our own docstring
    program.app.run(backend)
    *lines, last = capsys.readouterr().out.splitlines()
    relative = [os.path.join(".", Path(one.path).relative_to(folder)) for one in expected]  # noqa: PTH118 - a Path would drop the "."
    digests = [one.digest for one in expected]
    assert lines == [f"{digest} {path}" for digest, path in zip(digests, relative, strict=True)]
    assert re.fullmatch(r"[1-4] threads at once", last)
