"""
The main job of ``mtaio demo``, and an example to copy from: SHA-256 of every file under a path.

Promise: outcomes come in the order of the paths, at most ``limit`` threads are at work, and memory
depends neither on the number of files nor on their size.
Cost: small files share a call to a worker thread, which costs four times what hashing one of them
does. A rate or a timeout applies to each file, so each file then has a call of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from mtaio.app import Application
from mtaio.app._files import Failed, Found, Hashed, Outcome, Skipped, hash_files, walk
from mtaio.config import Settings
from mtaio.core import TaskExecutor
from mtaio.events import EventKey
from mtaio.exceptions import TimeoutError  # noqa: A004 - the refined one

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from mtaio.app._files import Entry, Place
    from mtaio.core import Stream

__all__ = ["DONE", "Failed", "Hashed", "HasherStatistics", "Outcome", "Skipped", "TreeHasher"]

DONE: Final[EventKey[list[Outcome]]] = EventKey("demo.done")
"""Emitted with the outcomes of each batch, in order."""

BATCH_FILES: Final = 64
BATCH_BYTES: Final = 1 << 20
"""A batch is full with this many files, or this many bytes."""

LOOK_AHEAD: Final = 256
"""How many entries are listed in one call to a worker thread."""

BUFFER: Final = 256
"""How many batches may be finished while an earlier one is not."""

HARD_LINKED: Final = 1 << 16
"""How many digests of files with hard links are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HasherStatistics:
    """What a `TreeHasher` has done so far, besides what its outcomes say."""

    in_flight_peak: int
    """The most slots that were ever in use at once; a file that waits under ``rate`` has one."""
    slot_waits: int
    """How often there was no free slot: listing and hashing share ``limit``."""
    slot_wait_seconds: float
    """Seconds spent on those waits, added up."""
    timed_out: int
    """Files that took longer than ``timeout``."""
    cache_hits: int
    """Files that were not read, because another hard link to them had been."""
    cache_misses: int
    """Files with hard links that were read."""


class TreeHasher:
    """
    An application that hashes every regular file under a path.

    Args:
        limit: Worker threads at once, including those that list folders.
        rate: Files started per second, evenly spaced.
        timeout: Seconds for each file.
        follow_symlinks: Whether symbolic links below the path are followed.
        leave_out: Files to pass over, each as `mtaio.app._files.place_of` names it.

    Raises:
        ValueError, TypeError: A limit is not valid.

    Example:
        ```python
        from mtaio.app.demo import DONE, Hashed, Outcome, TreeHasher
        from mtaio.events import Event

        hasher = TreeHasher(limit=4)
        app = hasher.app


        @app.emitter.on(DONE)
        def show(event: Event[list[Outcome]]) -> None:
            for outcome in event.data:
                if isinstance(outcome, Hashed):
                    print(outcome.digest, outcome.path)


        @app.service
        async def hash_all() -> None:
            await hasher.emit_all(".")
            print(hasher.statistics().in_flight_peak, "threads at once")
            app.request_stop("everything is hashed")


        if __name__ == "__main__":
            app.run()
        ```
    """

    def __init__(
        self,
        *,
        limit: int,
        rate: float = math.inf,
        timeout: float = math.inf,
        follow_symlinks: bool = False,
        leave_out: Collection[Place] = (),
    ) -> None:
        # A digest stays valid as long as its file does, and a busy processor needs no alert.
        settings = Settings(
            max_workers=limit,
            rate_limit=rate,
            burst_limit=1,
            default_timeout=timeout,
            cache_ttl=math.inf,
            cache_size=HARD_LINKED,
            cpu_threshold=100,
            memory_threshold=100,
        )
        self.app: Final = Application(
            settings,
            name="demo",
            executor=TaskExecutor(limit, thread_limiter=limit),
            logging=False,
            probes=False,
        )
        self._batch_files = BATCH_FILES if rate == timeout == math.inf else 1
        self._follow_symlinks = follow_symlinks
        self._leave_out = leave_out

    async def emit_all(self, path: str) -> None:
        """
        Hash everything, and emit `DONE` for each batch.

        A checkpoint; cancelled, it has emitted what was done so far.

        Args:
            path: A folder, or a single file.
        """
        async with self.stream(path) as batches:
            async for batch in batches:
                await self.app.emitter.emit(DONE, batch)

    def stream(self, path: str) -> Stream[list[Outcome]]:
        """
        Return an async context manager that iterates over the outcomes, several at a time.

        They come in the order of ``LC_ALL=C sort`` over the paths. Leaving the block early, or
        cancelling it, stops the threads at their next chunk and does not wait for them.

        Args:
            path: A folder, or a single file.
        """
        return self.app.executor.stream(
            self._hash_batch, self._batches(path), ordered=True, buffer=BUFFER
        )

    def statistics(self) -> HasherStatistics:
        """Return what was done so far. Not a checkpoint."""
        executor = self.app.executor.statistics()
        cache = self.app.cache.statistics()
        return HasherStatistics(
            in_flight_peak=executor.peak,
            slot_waits=executor.waits,
            slot_wait_seconds=executor.wait_seconds,
            timed_out=self.app.timeout_manager.statistics().timed_out,
            cache_hits=cache.hits,
            cache_misses=cache.misses,
        )

    async def _batches(self, path: str) -> AsyncIterator[list[Entry]]:
        """Yield what lies under the path, in batches that are worth a call to a thread."""
        entries = walk(path, follow_symlinks=self._follow_symlinks, leave_out=self._leave_out)
        batch: list[Entry] = []
        size = 0
        # Listing takes one of the executor's slots, as hashing does, so that the limit covers both.
        while found := await self.app.executor.run(self._list_further(entries)):
            for entry in found:
                batch.append(entry)
                size += entry.size if isinstance(entry, Found) else 0
                if len(batch) >= self._batch_files or size >= BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    async def _list_further(self, entries: Iterator[Entry]) -> list[Entry]:
        return await self.app.executor.run_in_thread(_take, entries, abandon_on_cancel=True)

    async def _hash_batch(self, batch: list[Entry]) -> list[Outcome]:
        """Hash the files of a batch, in a thread."""
        others = [entry for entry in batch if not isinstance(entry, Found)]
        if len(others) == len(batch):
            return [*others]
        app = self.app
        if self._batch_files == 1:
            await app.rate_limiter.acquire()
        try:
            # The limit also covers the wait for a thread: threads that hang keep their slots.
            with app.timeout_manager():
                return await app.executor.run_in_thread(
                    hash_files, batch, app.cache, abandon_on_cancel=True
                )
        except TimeoutError as error:
            return [Failed(entry.path, f"not read within {error.timeout:g} s") for entry in batch]


def _take(entries: Iterator[Entry]) -> list[Entry]:
    return list(islice(entries, LOOK_AHEAD))
