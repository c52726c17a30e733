"""
The main job of ``mtaio demo``, and an example to copy from: SHA-256 of every file under a path.

Promise: outcomes come in the order of the paths, at most ``limit`` threads are at work, and memory
depends neither on the number of files nor on their size. What cannot be looked at or read is a
value that says so, not an error, and the rest goes on.
Cost: small files share a call to a worker thread, which costs four times what hashing one of them
does. A rate or a timeout applies to each file, so each file then has a call of its own.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from anyio import from_thread

from mtaio.app import Application
from mtaio.config import Settings
from mtaio.core import TaskExecutor
from mtaio.events import EventKey
from mtaio.exceptions import TimeoutError  # noqa: A004 - the refined one

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from mtaio.core import Stream

__all__ = ["DONE", "Failed", "Hashed", "HasherStatistics", "Outcome", "Skipped", "TreeHasher"]

BATCH_FILES: Final = 64
BATCH_BYTES: Final = 1 << 20
"""A batch is full with this many files, or this many bytes."""

LOOK_AHEAD: Final = 256
"""How many entries are listed in one call to a worker thread."""

BUFFER: Final = 256
"""How many batches may be finished while an earlier one is not."""

CHUNK: Final = 256 * 1024

LINK: Final = "symbolic link"
_KINDS: Final = {stat.S_IFIFO: "FIFO", stat.S_IFLNK: LINK, stat.S_IFSOCK: "socket"}


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file that is to be hashed."""

    path: str
    size: int
    """Bytes, when it was looked at."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A regular file, and what was read in it from its beginning to its end."""

    path: str
    size: int
    """Bytes in it."""
    digest: str
    """SHA-256, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something other than a regular file, which was not read."""

    path: str
    kind: str
    """What it is."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that should have been hashed, or a folder that should have been looked through."""

    path: str
    reason: str
    """Why that could not be done."""


Entry = Found | Skipped | Failed
Outcome = Hashed | Skipped | Failed

DONE: Final[EventKey[list[Outcome]]] = EventKey("demo.done")
"""Emitted with the outcomes of each batch, in order."""


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


class TreeHasher:
    """
    An application that hashes every regular file under a path.

    Args:
        limit: Worker threads at once, including those that list folders.
        rate: Files started per second, evenly spaced.
        timeout: Seconds for each file.

    Raises:
        ValueError, TypeError: A limit is not valid.

    Example:
        ```python
        from mtaio.app._demo import DONE, Hashed, Outcome, TreeHasher
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
            app.stop_nowait("everything is hashed")


        if __name__ == "__main__":
            app.run()
        ```
    """

    def __init__(self, *, limit: int, rate: float = math.inf, timeout: float = math.inf) -> None:
        settings = Settings(
            max_workers=limit,
            rate_limit=rate,
            burst_limit=1,
            default_timeout=timeout,
            cpu_threshold=100,  # a busy processor needs no alert
            memory_threshold=100,
        )
        executor = TaskExecutor(limit, threads=limit)
        self.app: Final = Application(
            settings, name="demo", executor=executor, logging=False, probes=False
        )
        self._batch_files = BATCH_FILES if rate == timeout == math.inf else 1

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
            self._hash_batch, self._batches(path), ordered=True, max_pending=BUFFER
        )

    def statistics(self) -> HasherStatistics:
        """Return what was done so far. Not a checkpoint."""
        executor = self.app.executor.statistics()
        return HasherStatistics(
            in_flight_peak=executor.peak,
            slot_waits=executor.waits,
            slot_wait_seconds=executor.wait_seconds,
            timed_out=self.app.timeout_manager.statistics().timed_out,
        )

    async def _batches(self, path: str) -> AsyncIterator[list[Entry]]:
        """Yield what lies under the path, in batches that are worth a call to a thread."""
        entries = walk(path)
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
        some = islice(entries, LOOK_AHEAD)
        return await self.app.executor.run_in_thread(list[Entry], some, abandon_on_cancel=True)

    async def _hash_batch(self, batch: list[Entry]) -> list[Outcome]:
        """Hash the files of a batch, in a thread."""
        others: list[Outcome] = [entry for entry in batch if not isinstance(entry, Found)]
        if len(others) == len(batch):
            return others
        app = self.app
        if self._batch_files == 1:
            await app.rate_limiter.acquire()
        try:
            # The limit also covers the wait for a thread: threads that hang keep their slots.
            with app.timeout_manager():
                return await app.executor.run_in_thread(hash_files, batch, abandon_on_cancel=True)
        except TimeoutError as error:
            return [Failed(entry.path, f"not read within {error.timeout:g} s") for entry in batch]


def walk(top: str) -> Iterator[Entry]:
    """
    Yield what lies under ``top``, in order, or ``top`` itself if that is not a folder.

    It blocks, so it belongs in one of anyio's worker threads; before each folder it checks
    whether its call was cancelled.

    Args:
        top: Where to start; followed if it is a symbolic link, as those below are not.
    """
    ahead = [top]  # the next one last
    while ahead:
        path = ahead.pop()
        try:
            status = os.stat(path, follow_symlinks=path is top)  # noqa: PTH116 - a Path costs more than the call
            if stat.S_ISDIR(status.st_mode):
                from_thread.check_cancelled()
                with os.scandir(path) as entries:
                    ahead += [entry.path for entry in sorted(entries, key=_place, reverse=True)]
            elif stat.S_ISREG(status.st_mode):
                yield Found(path, status.st_size)
            else:
                yield Skipped(path, kind_of(status.st_mode))
        except OSError as error:
            yield Failed(path, reason_of(error))


def _place(entry: os.DirEntry[str]) -> bytes:
    """Return what an entry is sorted by: its name, with a slash if it is a folder."""
    return os.fsencode(entry.name) + b"/" * entry.is_dir(follow_symlinks=False)


def hash_files(entries: Iterable[Entry]) -> list[Outcome]:
    """
    Hash each file that was found; what was skipped or failed before is passed on as it is.

    It belongs in one of anyio's worker threads; after each chunk it checks whether its call was
    cancelled.
    """
    return [hash_file(entry.path) if isinstance(entry, Found) else entry for entry in entries]


def hash_file(path: str) -> Outcome:
    """Read one file to its end, as `hash_files` does."""
    sha256 = hashlib.sha256()
    size = 0
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            while chunk := file.read(CHUNK):
                from_thread.check_cancelled()
                sha256.update(chunk)
                size += len(chunk)
    except OSError as error:
        return Failed(path, reason_of(error))
    return Hashed(path, size, sha256.hexdigest())


def kind_of(mode: int) -> str:
    """Return the name of a kind of file, from its ``st_mode``."""
    return _KINDS.get(stat.S_IFMT(mode), "device")


def reason_of(error: OSError) -> str:
    """Return the operating system's words for what went wrong, without number and path."""
    return error.strerror or str(error)
