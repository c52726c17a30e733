"""
What a call has done so far, in a file, so that a run that was killed goes on where it stopped.

Promise: an item's result is given after its line was written, each line by one ``write()`` to the
end of the file. Killed at any moment, the next run finds every line that was written, and cuts off
one that was written in part; it calls the function with no item whose line is there. A disk that
blocks holds up the items that have something to record, and not the event loop.
Cost: one way to a thread and back, 0.1 ms or more, for all lines that are ready at that moment. In
memory the keys of what is recorded with the places of their lines, some 130 bytes each, and not the
values: those are read again, in blocks, when their items come.

How an item goes (`Recording`):

1. Where the source is read (`rest_of`), its key is looked up. If it has a line, the value is read,
   in a thread unless it is in the block that was read last: runs read the source in about the
   order in which they wrote. If no item before it still waits to begin, the value takes its place
   among the results there and then: without a slot, a token, a thread or a call.
2. Otherwise it goes on its way to a worker, and inside everything that belongs to its attempts
   (`around`) its key is looked up again. An item that is recorded has its value, and one whose key
   is at work waits for that. The items of a batch are looked up one by one, and the function gets
   the rest of them.
3. The value is turned into a line, which is then read as the next run will: what the call gives
   does not depend on which run has made it.
4. The line is put with the others that wait. Whoever comes to the file first writes all of them at
   once; the others find theirs written (`_write`). The item cannot be cancelled meanwhile: what was
   paid for is recorded.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from io import FileIO
from logging import getLogger
from threading import Lock
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    TypeAlias,
    TypeGuard,
    TypeVar,
    cast,
    final,
)
from weakref import WeakSet

import anyio
from anyio import from_thread, to_thread

from mtaio._internal import checks, file_locks, loops
from mtaio._internal.callables import is_async
from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint
from mtaio._internal.notes import note
from mtaio.core._errors import shorten

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Iterator,
    )
    from pathlib import Path

    from mtaio.core._pool import Pool
    from mtaio.core._source import Feed

__all__ = ["Journal", "Key", "Recording", "record"]

T = TypeVar("T")

Key: TypeAlias = str | int
"""What an item is recorded under."""

_BLOCK: Final = 1 << 16
"""How much is read at once, in bytes."""

_BEGINS: Final = b'{"key": '
"""How each line begins that was written here."""

_LOOK_EVERY: Final = 1000
"""Lines, after which a thread that reads looks whether it is still wanted."""

logger: Final = getLogger("mtaio.core")


@dataclass(frozen=True, slots=True)
class _Format:
    """How items become lines of a file, and lines values; what a `Journal` was given."""

    path: Path
    key: Callable[[Any], Key] | None
    dump: Callable[[Any], object] | None
    load: Callable[[Any], Any] | None
    fsync: bool

    def __str__(self) -> str:
        return f"the journal {str(self.path)!r}"

    def key_of(self, item: Any) -> Key:
        """Return the key of an item, or raise."""
        key = item if self.key is None else self.key(item)
        if _is_key(key):
            return key
        if self.key is None:
            msg = (
                f"the item {item!r} is {checks.type_of(item)}, and cannot be its own key in "
                f"{self}. Pass key= to Journal: a function that returns a str or an int."
            )
        else:
            msg = (
                f"key={self.key!r} returned {key!r}, {checks.type_of(key)}, for the item "
                f"{item!r}. Return a str or an int that is the same in every run."
            )
        raise TypeError(msg)

    def line(self, key: Key, value: Any) -> tuple[bytes, Any]:
        """Return the line that records a value, and the value as it will be read from there."""
        import json  # noqa: PLC0415 - few programs have a journal

        held = value if self.dump is None else self.dump(value)
        try:
            text = json.dumps({"key": key, "value": held}, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            msg = (
                f"the result for key={key!r} cannot be recorded in {self}: {error}. Pass dump= "
                f"and load= to Journal, which turn results into what JSON can hold, and back."
            )
            raise TypeError(msg) from error
        return text.encode("utf-8", "surrogatepass") + b"\n", self.loaded(json.loads(text)["value"])

    def loaded(self, value: Any) -> Any:
        """Return a result from what a line holds."""
        return value if self.load is None else self.load(value)

    def parse(self, number: int, line: bytes) -> tuple[Key, Any]:
        """Return the key of a line, and what it holds for a value; or raise."""
        import json  # noqa: PLC0415 - few programs have a journal

        try:
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if _is_key(key):
                return key, value
            reason = f"its key is {checks.type_of(key)}"
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
        msg = (
            f"line {number} of {self} is not what a journal writes ({reason}): {line[:80]!r}. "
            f"Delete the line, and its item is called again; or pass another path, if this file "
            f"is not a journal."
        )
        raise ValueError(msg)


def _is_key(key: object) -> TypeGuard[Key]:
    return isinstance(key, str | int) and not isinstance(key, bool)


@final
class Journal(Generic[T]):
    """
    A file that records finished items, so that the next run of a program does only the rest.

    Pass it to an executor's call as ``journal=``. Each item that succeeds adds a line ``{"key": …,
    "value": …}`` before its result is delivered. An item whose key is in the file is not called
    again; its result is the recorded value. Items that fail or are cancelled are not recorded.

    If the program is killed, even by SIGKILL, no line is lost; calls in progress at that moment are
    made again by the next run. After a power cut, the lines of the last half minute may be missing
    unless ``fsync`` is set.

    A journal can be created outside an event loop and used again. Only one call, of any process,
    uses a file at a time, and locks it meanwhile.

    Args:
        path: The file. It is created if missing; its directory must exist.
        key: Returns the key of an item, a str or int that is the same in every run; None if the
            items themselves are such keys. With several sources it is called with a tuple. It must
            not block.
        dump: Converts a result to a value that JSON can hold; None if it already is one.
        load: Converts that value back to a result. The call delivers only such results, so that a
            tuple becomes a list in the first run too.
        fsync: Whether to wait until each line is on disk and survives a power cut. This takes some
            milliseconds for all lines that are ready at that moment.

    Raises:
        TypeError, ValueError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        from tempfile import TemporaryDirectory

        import anyio

        from mtaio import TaskExecutor
        from mtaio.core import Journal

        executor = TaskExecutor(max_workers=10)


        async def ask(question: str) -> str:
            await anyio.sleep(0.1)
            return question.upper()


        async def main() -> None:
            with TemporaryDirectory() as folder:  # a real program has one that stays
                journal = Journal[str](f"{folder}/answers.jsonl")
                for _ in range(2):  # the second time nothing is asked
                    print(await executor.map(ask, ["what?", "why?"], journal=journal))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_format")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: Callable[[Any], str | int] | None = None,
        dump: Callable[[T], object] | None = None,
        load: Callable[[Any], T] | None = None,
        fsync: bool = False,
    ) -> None:
        where = checks.path("path", path)
        for name, hook in {"key": key, "dump": dump, "load": load}.items():
            if hook is not None:
                way_out = "Pass a plain function of one argument, or None."
                checks.callable_(name, hook, way_out=way_out)
                if is_async(hook):
                    msg = f"{name}={hook!r} is async, and would not be awaited. {way_out}"
                    raise TypeError(msg)
        self._format = _Format(where, key, dump, load, checks.flag("fsync", fsync))

    def __repr__(self) -> str:
        return f"<Journal {str(self.path)!r}>"

    @property
    def path(self) -> Path:
        """The file."""
        return self._format.path

    def entries(self) -> Iterator[tuple[str | int, T]]:
        """
        Iterate over the keys and values in the file; over nothing if there is no file.

        It reads the file as it goes, also while a call adds to it, and so blocks the event loop if
        the file is large. If a key occurs several times, its last value counts.

        Raises:
            ValueError: A line is malformed.
            OSError: The file cannot be read.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n") and not line.isspace():  # one is just being written
                    key, value = self._format.parse(number, line)
                    yield key, self._format.loaded(value)


def record(
    journal: object,
    *,
    many: bool,
    values: bool,
    batched: bool,
    elements: Callable[[object, str], Any] | None = None,
) -> Recording:
    """
    Return what one call does with its journal.

    Args:
        journal: What was passed.
        many: Whether the function gets several arguments for each item.
        values: Whether anybody wants the results.
        batched: Whether an item of the call is a list of those that are recorded.
        elements: If given, what returns the elements of a value, with the name of what it is from.

    Raises:
        TypeError: ``journal`` is no journal.
    """
    if not isinstance(journal, Journal):
        msg = (
            f"journal={journal!r} is {checks.type_of(journal)}. Pass a mtaio.core.Journal, or None."
        )
        raise TypeError(msg)
    form: _Format = journal._format  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
    if elements is not None:
        load, name = form.loaded, str(form)

        def elements_in(held: object) -> Any:
            return elements(load(held), name)

        form = replace(form, load=elements_in)
    return Recording(form, many=many, values=values, batched=batched)


@final
class _Entry:
    """Lines that are to be written; they have a ``place`` when that is done, or an ``error``."""

    __slots__ = ("data", "error", "place")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place: int | None = None
        self.error: OSError | None = None


@final
class Recording:
    """
    A journal in the hands of one call.

    Args:
        form: The journal.
        many: As for `record`.
        values: As for `record`.
        batched: Whether an item of the call is a list of those that have keys.

    Attributes:
        pool: The call.
        with_args: Whether the call's results come with the arguments.

    Invariants:
    - what happens to the file happens in threads, under ``_lock``: one that was left behind by a
      cancellation of asyncio's own may still be there when another comes;
    - ``_size`` is where the next line begins: there is nothing behind it, unless the file is
      ``_torn``, and then nothing is written any more;
    - ``_places`` has where the line of each recorded key begins;
    - ``_at_work`` has the keys of the items that are called, each with what is set when its call
      has ended; no call begins with one of these.
    """

    __slots__ = (
        "_at_work",
        "_batched",
        "_block",
        "_closed",
        "_failure",
        "_file",
        "_format",
        "_lock",
        "_many",
        "_pending",
        "_places",
        "_size",
        "_threads",
        "_torn",
        "_values",
        "_written",
        "pool",
        "with_args",
    )

    def __init__(self, form: _Format, *, many: bool, values: bool, batched: bool) -> None:
        self.pool: Pool  # both are there from `run` on
        self._threads: anyio.CapacityLimiter
        self.with_args: bool = False
        self._format = form
        self._many = many
        self._values = values
        self._batched = batched
        self._lock = Lock()
        self._file: FileIO | None = None
        self._closed = False
        self._size = 0
        self._torn: OSError | None = None
        self._places: dict[Key, int] = {}
        self._block = (0, b"")
        self._at_work: dict[Key, anyio.Event] = {}
        self._pending: list[_Entry] = []
        self._failure: OSError | None = None
        self._written: anyio.Event | None = None

    async def run(self, pool: Pool) -> None:
        """Run the call while the file is open. A checkpoint."""
        self.pool = pool
        self._threads = anyio.CapacityLimiter(1)
        loop = loops.current_loop()
        try:
            try:
                await self._in_thread(self._open)
            except BaseException:
                if loops.is_current(loop):
                    pool.stop()  # it begins nothing then, and closes the sources
                    await pool.run()
                raise
            await pool.run()
        finally:
            self._closed = True
            try:
                if loops.is_current(loop):  # else it was closed
                    with anyio.CancelScope(shield=True):
                        await self._in_thread(self._close)
            finally:
                self._close()  # asyncio's own cancellation goes through the shield
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it holds this frame: else they keep each other alive

    # ---- items ----

    async def rest_of(self, source: AsyncIterator[Any], feed: Feed) -> AsyncGenerator[Any, None]:
        """
        Yield what has to be called, and what cannot take its place among the results yet.

        The source is for the feed to close: this is not there to do it before its first step.
        """
        unyielding = 0
        async for item in source:
            if not (feed.is_clear() and await self._skip(item)):
                unyielding = 0
                yield item
                continue
            unyielding += 1
            if unyielding >= FAST_ITEMS:
                unyielding = 0
                await checkpoint()

    async def _skip(self, item: Any) -> bool:
        """Give the item that comes next its recorded value for a result, if there is one."""
        try:
            key = self._format.key_of(item)
            if key not in self._places:
                return False
            value = await self._value(key)
        except Exception:  # noqa: BLE001 - it fails again where it is called, and is its error then
            return False
        if self.with_args:
            value = (item if self._many else (item,), value)
        return self.pool.put_without_call(value)

    def around(
        self, call: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return what makes a call for an item, or for those of a batch, that are not recorded."""

        async def one(*args: Any) -> Any:
            async def only(_: list[Any]) -> list[Any]:
                return [await call(*args)]

            (value,) = await self._values_of([args if self._many else args[0]], only)
            return value

        async def batch(items: list[Any]) -> list[Any]:
            return await self._values_of(items, call)

        return batch if self._batched else one

    async def _values_of(
        self, items: list[Any], call: Callable[[list[Any]], Awaitable[list[Any]]]
    ) -> list[Any]:
        """Return the values of items, after a ``call`` with those that nobody has called."""
        keys = [self._format.key_of(item) for item in items]
        fresh: dict[Key, Any] = {}
        while True:
            rest: dict[Key, Any] = {}
            busy: anyio.Event | None = None
            for key, item in zip(keys, items, strict=True):
                if key in self._at_work:
                    busy = self._at_work[key]
                elif key not in self._places:
                    rest[key] = item
            if rest:
                fresh |= await self._call(rest, call)
            elif busy is not None:  # only now, so that no two wait for each other
                await busy.wait()
            else:
                return [fresh[key] if key in fresh else await self._value(key) for key in keys]

    async def _call(
        self, items: dict[Key, Any], call: Callable[[list[Any]], Awaitable[list[Any]]]
    ) -> dict[Key, Any]:
        """Make a call, and record its values."""
        ended = anyio.Event()
        self._at_work |= dict.fromkeys(items, ended)
        try:
            values = await call([*items.values()])
            try:
                return await self._record([*items], values)
            except Exception as error:
                note(
                    error,
                    f"the call for {shorten([*items])} was made, but its result is not recorded in "
                    f"{self._format}: the next run makes it again",
                )
                raise
        finally:
            for key in items:
                del self._at_work[key]
            ended.set()

    async def _record(self, keys: list[Key], values: Any) -> dict[Key, Any]:
        """Write a line for each key, and return the values as they are read from there."""
        if values is None and not self._values:
            values = [None] * len(keys)
        if not isinstance(values, list | tuple):
            msg = (
                f"a batch returned {checks.type_of(values)}, and {self._format} has a line for "
                f"each of its items. Return a list with a result for each."
            )
            raise TypeError(msg)
        results = cast("list[Any]", values)
        if len(results) != len(keys):
            msg = (
                f"a batch of {len(keys)} items returned {len(results)} results, and {self._format} "
                f"has a line for each item. Return a list with a result for each."
            )
            raise ValueError(msg)
        lines: list[bytes] = []
        fresh: dict[Key, Any] = {}
        for key, value in zip(keys, results, strict=True):
            line, fresh[key] = self._format.line(key, value)
            lines.append(line)
        place = await self._write(b"".join(lines))
        for key, line in zip(keys, lines, strict=True):
            self._places[key] = place
            place += len(line)
        return fresh

    async def _write(self, data: bytes) -> int:
        """Have lines written, and return their place. A checkpoint that cannot be cancelled."""
        entry = _Entry(data)
        self._pending.append(entry)
        with anyio.CancelScope(shield=True):
            while entry.place is None and entry.error is None:
                if self._written is not None:
                    await self._written.wait()
                    continue
                self._written = written = anyio.Event()
                try:
                    await self._in_thread(self._flush)
                finally:
                    self._written = None
                    written.set()
        if entry.error is None:
            return cast("int", entry.place)
        error, entry.error = entry.error, None
        # Whatever the call does about errors of items: to go on would be to pay for nothing.
        if self._failure is None:
            self._failure = error
        self.pool.stop()
        try:
            raise error
        finally:
            del error  # it holds this frame: else they keep each other alive

    async def _value(self, key: Key) -> Any:
        """Return what is recorded for a key."""
        if not self._values:
            return None
        place = self._places[key]
        begins, block = self._block
        end = block.find(b"\n", place - begins) if 0 <= place - begins < len(block) else -1
        if end >= 0:
            line = block[place - begins : end]
        else:
            line = await self._in_thread(partial(self._read, place))
        return self._format.loaded(self._format.parse(0, line)[1])

    # ---- the file ----

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._threads)

    def _open(self) -> None:
        """Open and lock the file, and learn what is recorded (in a thread)."""
        path = self._format.path
        with self._lock:
            if self._closed:  # nobody waits any more
                return
            is_new = not path.exists()
            if not (is_new or path.is_file()):
                msg = f"{self._format} is not a regular file. Pass the path of one, or a new one."
                raise ValueError(msg)
            self._file = file = FileIO(str(path), "a+")
            _files.add(file)
            if not file_locks.lock(file.fileno(), wait=False):
                msg = (
                    f"{self._format} is in use by another call, or another process: both would "
                    f"do the same work. Wait for its end, or give each a file of its own."
                )
                raise RuntimeError(msg)
            if is_new and self._format.fsync:
                _sync_folder(path)
            self._read_all()

    def _read_all(self) -> None:
        with self._format.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number % _LOOK_EVERY == 0:
                    from_thread.check_cancelled()
                if not line.endswith(b"\n"):
                    self._mend(number, line)
                elif not line.isspace():
                    self._places[self._format.parse(number, line)[0]] = self._size
                    self._size += len(line)
                else:
                    self._size += len(line)

    def _mend(self, number: int, line: bytes) -> None:
        """Deal with the last line if its end is missing: the process was killed as it wrote it."""
        file = cast("FileIO", self._file)
        whole = line.rstrip(b"\0")  # which a power cut may leave
        try:
            key, _ = self._format.parse(number, whole)
        except ValueError:
            if not _is_torn(whole):
                raise  # not ours to cut
            file.truncate(self._size)
            logger.warning("cut %d bytes of an incomplete line off %s", len(line), self._format)
        else:
            file.truncate(self._size + len(whole))
            file.write(b"\n")
            self._places[key] = self._size
            self._size += len(whole) + 1

    def _flush(self) -> None:
        """Write all lines that wait (in a thread)."""
        with self._lock:
            entries, self._pending = self._pending, []
            try:
                if self._torn is not None:
                    raise self._torn
                self._append(b"".join(entry.data for entry in entries))
            except OSError as error:
                for entry in entries:
                    entry.error = OSError(error.errno, error.strerror, str(self._format.path))
            else:
                for entry in entries:
                    entry.place = self._size
                    self._size += len(entry.data)

    def _append(self, data: bytes) -> None:
        file = cast("FileIO", self._file)
        left = memoryview(data)
        try:
            while left:
                left = left[file.write(left) :]
            if self._format.fsync:
                os.fsync(file.fileno())
        except OSError as error:
            try:
                file.truncate(self._size)
            except OSError:
                self._torn = error  # the next run cuts it off
            raise

    def _read(self, place: int) -> bytes:
        """Return the line at a place, and keep what was read with it (in a thread)."""
        with self._lock:
            file = cast("FileIO", self._file)
            file.seek(place)
            blocks = [b""]
            while b"\n" not in blocks[-1]:
                blocks.append(file.read(_BLOCK))
                if not blocks[-1]:
                    msg = f"{self._format} was changed by others while a call used it"
                    raise RuntimeError(msg)
        block = b"".join(blocks)
        self._block = place, block
        return block[: block.index(b"\n")]

    def _close(self) -> None:
        """Write what still waits, unlock the file and close it (in a thread)."""
        if self._pending:
            self._flush()
        with self._lock:
            file = self._file
            if file is not None and not file.closed:
                # Closed alone, it would stay locked until a child that was just forked closes it.
                file_locks.unlock(file.fileno())
                file.close()


def _is_torn(line: bytes) -> bool:
    """Return whether it is the beginning of a line of ours, and no more than that."""
    import json  # noqa: PLC0415 - few programs have a journal

    if not (line.startswith(_BEGINS) or _BEGINS.startswith(line)):
        return False
    try:
        json.JSONDecoder().raw_decode(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return True
    return False  # the beginning of an object is no JSON


_files: Final[WeakSet[FileIO]] = WeakSet()
"""The files of all journals in use."""


def _in_child() -> None:  # pragma: no cover - a forked child, which is not measured
    """Close the files in a forked child, which would keep them locked when its parent is gone."""
    for file in _files:
        file.close()


if sys.platform == "win32":  # pragma: no cover - Windows

    def _sync_folder(path: Path) -> None:
        """Do nothing: a folder cannot be synchronised there."""

else:
    os.register_at_fork(after_in_child=_in_child)

    def _sync_folder(path: Path) -> None:
        """Bring the entry of a new file to the disk."""
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
