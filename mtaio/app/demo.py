"""
The main job of ``mtaio demo``, and an example to copy from: SHA-256 of every file under a path.

Promise: outcomes come in the order of the paths, never more than ``limit`` threads are at work, and
memory depends neither on how many files there are nor on how large they are.
Cost: small files share a call to a worker thread, which costs four times what hashing one of them
does. With a rate or a timeout, which apply to each file, each file has a call of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from mtaio._internal import checks
from mtaio._internal.clock import now
from mtaio.app._files import Failed, Found, Hashed, Outcome, Skipped, hash_files, walk
from mtaio.core import TaskExecutor
from mtaio.exceptions import RateLimitError, TimeoutError  # noqa: A004 - the refined one
from mtaio.resources import RateLimiter, TimeoutManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from mtaio.app._files import Entry, Place
    from mtaio.core import Stream

__all__ = ["Failed", "Hashed", "HasherStatistics", "Outcome", "Skipped", "TreeHasher"]

BATCH_FILES: Final = 64
BATCH_BYTES: Final = 1 << 20
"""A batch is full with so many files, or with so many bytes."""

LOOK_AHEAD: Final = 256
"""So many entries are listed in one call to a worker thread."""

BUFFER: Final = 256
"""So many batches may be finished while one before them is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HasherStatistics:
    """What a `TreeHasher` has done so far, beside what its outcomes say."""

    in_flight_peak: int
    """The most slots that were ever in use at once; a file that waits under ``rate`` has one."""
    slot_waits: int
    """How often there was no free slot: listing and hashing share ``limit``."""
    slot_wait_seconds: float
    """Seconds spent on those waits, added up."""
    token_waits: int
    """How often a file had to wait under ``rate``."""
    token_wait_seconds: float
    """Seconds spent on those waits, added up."""
    timed_out: int
    """Files that took longer than ``timeout``."""


class TreeHasher:
    """
    Hashes every regular file under a path.

    Args:
        limit: Worker threads at once, including those that list folders.
        rate: Files started per second, evenly spaced, more than 0.
        timeout: Seconds for each file, more than 0; None for no limit.
        follow_symlinks: Whether symbolic links below the path are followed.
        leave_out: Files to pass over, each as `mtaio.app._files.place_of` names it.

    Raises:
        ValueError, TypeError: A limit makes no sense.

    Example:
        ```python
        import anyio

        from mtaio.app.demo import Hashed, TreeHasher

        hasher = TreeHasher(limit=4)


        async def main() -> None:
            async with hasher.stream(".") as batches:
                async for batch in batches:
                    for outcome in batch:
                        if isinstance(outcome, Hashed):
                            print(outcome.digest, outcome.path)
            print(hasher.statistics().in_flight_peak, "threads at once")


        anyio.run(main)
        ```
    """

    def __init__(
        self,
        *,
        limit: int,
        rate: float = math.inf,
        timeout: float | None = None,
        follow_symlinks: bool = False,
        leave_out: Collection[Place] = (),
    ) -> None:
        checks.count("limit", limit, way_out="Pass how many worker threads may be at work at once.")
        _positive("rate", rate, way_out="Pass files per second, or omit it for no limit.")
        if timeout is not None:
            _positive("timeout", timeout, way_out="Pass seconds, or omit it for no limit.")
        self._executor = TaskExecutor(limit, thread_limiter=limit, name="demo")
        self._rate = RateLimiter.smooth(rate, name="demo")
        self._timeouts = TimeoutManager(timeout, name="demo")
        self._batch_files = BATCH_FILES if rate == math.inf and timeout is None else 1
        self._follow_symlinks = follow_symlinks
        self._leave_out = leave_out
        self._token_waits = 0
        self._token_wait_seconds = 0.0

    def stream(self, path: str) -> Stream[list[Outcome]]:
        """
        Return an async context manager that iterates over the outcomes, several at a time.

        They come in the order of ``LC_ALL=C sort`` over the paths. Leaving the block early, or
        cancelling it, stops the threads at their next chunk and does not wait for them.

        Args:
            path: A folder, or a single file.
        """
        return self._executor.stream(
            self._hash_batch, self._batches(path), ordered=True, buffer=BUFFER
        )

    def statistics(self) -> HasherStatistics:
        """Return what was done so far. Not a checkpoint."""
        executor = self._executor.statistics()
        return HasherStatistics(
            in_flight_peak=executor.peak,
            slot_waits=executor.waits,
            slot_wait_seconds=executor.wait_seconds,
            token_waits=self._token_waits,
            token_wait_seconds=self._token_wait_seconds,
            timed_out=self._timeouts.statistics().timed_out,
        )

    async def _batches(self, path: str) -> AsyncIterator[list[Entry]]:
        """Yield what lies under the path, in batches that are worth a call to a thread."""
        entries = walk(path, follow_symlinks=self._follow_symlinks, leave_out=self._leave_out)
        batch: list[Entry] = []
        size = 0
        # Listing takes one of the executor's slots, as hashing does, so that the limit covers both.
        while found := await self._executor.run(self._list_further(entries)):
            for entry in found:
                batch.append(entry)
                size += entry.size if isinstance(entry, Found) else 0
                if len(batch) >= self._batch_files or size >= BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    async def _list_further(self, entries: Iterator[Entry]) -> list[Entry]:
        return await self._executor.run_in_thread(_take, entries, abandon_on_cancel=True)

    async def _hash_batch(self, batch: list[Entry]) -> list[Outcome]:
        """Hash the files of a batch, in a thread."""
        files = sum(isinstance(entry, Found) for entry in batch)
        if not files:
            return [entry for entry in batch if not isinstance(entry, Found)]
        await self._acquire(files)
        try:
            # The limit also covers the wait for a thread: threads that hang keep their slots.
            with self._timeouts():
                return await self._executor.run_in_thread(hash_files, batch, abandon_on_cancel=True)
        except TimeoutError as error:
            return [Failed(entry.path, f"not read within {error.timeout:g} s") for entry in batch]

    async def _acquire(self, files: int) -> None:
        """Wait until so many files may start, and count that wait."""
        try:
            self._rate.acquire_nowait(files)
        except RateLimitError:
            started = now()
            await self._rate.acquire(files)
            self._token_waits += 1
            self._token_wait_seconds += now() - started


def _take(entries: Iterator[Entry]) -> list[Entry]:
    return list(islice(entries, LOOK_AHEAD))


def _positive(name: str, value: float, *, way_out: str) -> None:
    if checks.number(name, value, way_out=way_out) <= 0:
        msg = f"{name}={value!r} is not more than 0. {way_out}"
        raise ValueError(msg)
