"""Journals: what a call has done, the next one does not do again."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from contextlib import nullcontext, suppress
from functools import partial
from io import FileIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from anyio import from_thread

from mtaio.core import Intake, Journal, Retry, TaskExecutor
from mtaio.core import _journal as journals
from mtaio.testing import run
from tests.closed_loops import leave_waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal is."""
    return tmp_path / "out.jsonl"


class Work:
    """A function that remembers what it was called with."""

    def __init__(self, *, fails: tuple[object, ...] = (), seconds: float = 1) -> None:
        self.calls: list[Any] = []
        self.fails = fails
        self.seconds = seconds

    async def __call__(self, item: Any) -> Any:
        """Take its time, and fail or return something."""
        self.calls.append(item)
        await anyio.sleep(self.seconds)
        if item in self.fails:
            msg = f"no {item}"
            raise ZeroDivisionError(msg)
        return item, 10 * item

    def taken(self) -> list[Any]:
        """Return what it was called with since it was last asked."""
        calls, self.calls = self.calls, []
        return calls


def content(path: Path) -> bytes:
    """Return what is in the file."""
    return path.read_bytes()


def put(path: Path, data: bytes) -> None:
    """Write the file anew."""
    path.write_bytes(data)


def recorded(path: Path) -> list[Any]:
    """Return the keys in the file, in their order."""
    return [json.loads(line)["key"] for line in content(path).splitlines()]


# ---- items ---------------------------------------------------------------------------------------


async def test_next_call_does_the_rest(path: Path) -> None:
    """Items that failed are called again and the others not; results are in their order."""
    work, executor = Work(fails=(1, 4)), TaskExecutor(2)
    journal = Journal[list[int]](path)
    with pytest.raises(ExceptionGroup):
        await executor.map(work, range(6), journal=journal, errors="collect")
    assert sorted(work.taken()) == [0, 1, 2, 3, 4, 5]
    assert sorted(recorded(path)) == [0, 2, 3, 5]
    failed, *_ = await executor.map(work, [4, 0], journal=journal, errors="return")
    assert isinstance(failed, ZeroDivisionError)
    assert work.taken() == [4]
    work.fails = ()
    steps: list[tuple[int, int | None]] = []

    def report(done: int, total: int | None) -> None:
        steps.append((done, total))

    results = await executor.map(work, range(7), journal=journal, on_progress=report)
    assert results == [[item, 10 * item] for item in range(7)]
    assert sorted(work.taken()) == [1, 4, 6]
    assert steps == [(done, 7) for done in range(1, 8)]
    assert dict(journal.entries()) == {item: [item, 10 * item] for item in range(7)}
    assert executor.statistics().in_flight == 0


@pytest.mark.parametrize("outcomes", [False, True])
async def test_streams_give_what_is_recorded(path: Path, outcomes: Any) -> None:
    """An ordered stream has every result in its place, and as an outcome with its item."""
    work, executor = Work(), TaskExecutor()
    journal = Journal[Any](path)
    await executor.for_each(work, [1, 2, 5], journal=journal)
    work.calls.clear()

    send, receive = anyio.create_memory_object_stream[int](7)
    with send:
        for item in range(7):
            send.send_nowait(item)
    call = partial(executor.stream, work, receive, journal=journal, ordered=True, limit=2)
    async with receive, call(outcomes=outcomes) as results:
        found = [result async for result in results]
    assert work.taken() == [0, 3, 4, 6]
    if outcomes:
        assert [(each.index, each.item) for each in found] == [(item, item) for item in range(7)]
        found = [each.value for each in found]
    assert found == [[item, 10 * item] for item in range(7)]


async def test_full_stream_holds_recorded_items_back(path: Path) -> None:
    """A consumer that falls behind holds back the items that are recorded, too."""
    executor, taken = TaskExecutor(), 0
    await executor.for_each(Work(seconds=0), range(100), journal=Journal(path))

    async def items() -> AsyncIterator[int]:
        nonlocal taken
        for number in range(100):
            taken = number
            yield number

    call = partial(executor.stream, Work(), journal=Journal[Any](path), ordered=True)
    async with call(items(), limit=2, max_pending=3) as results:
        async for _ in results:
            await anyio.sleep(1)
            assert taken <= 2 + 3 + 2
            break
    async with call(range(100), limit=2, max_pending=3) as results:
        assert [result[0] async for result in results] == [*range(100)]


async def test_recorded_items_wait_for_nothing(path: Path) -> None:
    """A run of them waits once for a slot, and takes no tokens; those that are called do."""
    work, executor = Work(seconds=0), TaskExecutor(1)
    await executor.map(work, range(100), journal=Journal(path))
    work.calls.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(executor.map, Work(), range(300))
        await anyio.sleep(0.5)
        start = anyio.current_time()
        await executor.map(work, range(102), journal=Journal(path), rate=0.1)
        assert work.taken() == [100, 101]
        assert anyio.current_time() - start <= 10 + 4
        group.cancel_scope.cancel()


async def test_item_of_the_same_key_is_called_once(path: Path) -> None:
    """Both get the result; if the first one fails, the next one is called."""
    work, executor = Work(), TaskExecutor()
    results = await executor.map(work, [1, 1, 2, 1], journal=Journal[Any](path))
    assert results == [[1, 10], [1, 10], [2, 20], [1, 10]]
    assert work.taken() == [1, 2]
    work.fails = (3,)
    failed = await executor.map(work, [3, 3], journal=Journal(path), errors="return")
    assert [str(error) for error in failed] == ["no 3", "no 3"]
    assert work.taken() == [3, 3]


# ---- keys and values -----------------------------------------------------------------------------


async def test_keys(path: Path) -> None:
    """A key is made of an item, or of the items of all sources; 1 is another key than "1"."""
    executor, calls = TaskExecutor(), 0

    async def join(a: object, b: object) -> str:
        nonlocal calls
        calls += 1
        await anyio.sleep(1)
        return f"{a}{b}"

    journal = Journal[str](path, key=lambda pair: str(pair[1]) if pair[0] else pair[1])
    for _ in range(2):
        assert await executor.map(join, [0, 1], [1, 1], journal=journal) == ["01", "11"]
        assert calls == 2
    async with executor.stream(join, [1], [1], journal=journal, outcomes=True) as outcomes:
        assert [each.item async for each in outcomes] == [(1, 1)]
    assert sorted(recorded(path), key=repr) == ["1", 1]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, r"the item \(1,\) is a tuple, and cannot be its own key in the journal '.*'. Pass"),
        (lambda _: True, r"key=<function .* returned True, a bool, for the item \(1,\). Return"),
    ],
)
async def test_what_is_no_key(path: Path, key: Any, message: str) -> None:
    """An item without a key fails, and is not called."""
    work, journal = Work(), Journal[Any](path, key=key)
    with pytest.raises(TypeError, match=f"^{message}"):
        await TaskExecutor().map(work, [(1,)], journal=journal)
    assert not work.calls
    (error,) = await TaskExecutor().map(work, [(1,)], journal=journal, errors="return")
    assert isinstance(error, TypeError)
    assert error.__notes__[-1].startswith("in item 0: ")


async def test_result_that_json_cannot_hold(path: Path) -> None:
    """The error says what it was, that the call was made, and how to record such results."""

    async def letters(word: str) -> set[str]:
        await anyio.sleep(1)
        return set(word)

    executor = TaskExecutor()
    words = ["abba"]
    with pytest.raises(TypeError, match=r"^the result for key='abba' cannot be recorded") as caught:
        await executor.map(letters, words, journal=Journal(path))
    assert caught.value.__notes__[0].startswith("the call for ['abba'] was made, but its result")
    assert content(path) == b""
    journal = Journal[set[str]](path, dump=sorted, load=set)
    for _ in range(2):
        assert await executor.map(letters, words, journal=journal) == [{"a", "b"}]
    assert content(path) == b'{"key": "abba", "value": ["a", "b"]}\n'
    assert [*journal.entries()] == [("abba", {"a", "b"})]
    broken = Journal[Any](path, load=int)
    with pytest.raises(TypeError, match=r"^int\(\) argument") as caught:
        await executor.map(letters, words, journal=broken)
    (note,) = caught.value.__notes__
    assert note.startswith("in item 0: ")


async def test_any_text(path: Path) -> None:
    """Line breaks, letters of all scripts and halves of a pair come back as they were."""
    texts = ["a\nb\r\u2028\x85", "日本", "\ud800", "\0"]

    async def same(text: str) -> str:
        return text

    for _ in range(2):
        assert await TaskExecutor().map(same, texts, journal=Journal(path)) == texts
    assert len(recorded(path)) == 4
    assert "日本" in content(path).decode("utf-8", "surrogatepass")


async def test_value_larger_than_a_block(path: Path) -> None:
    """Values are read again however large, and in whatever order they come."""
    executor, sizes = TaskExecutor(1), [3 * journals._BLOCK, 1, journals._BLOCK, 2]

    async def text(size: int) -> str:
        return "x" * size

    await executor.for_each(text, sizes, journal=Journal(path))
    results: Any = await executor.map(Work(), sizes[::-1], journal=Journal[Any](path))
    assert [len(each) for each in results] == sizes[::-1]


async def test_cost_of_a_large_value(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read it again takes time in proportion to its size, in however many blocks it comes."""
    size = 1 << 20

    async def text(_: int) -> str:
        return "x" * size

    await TaskExecutor().map(text, [1], journal=Journal(path))
    monkeypatch.setattr(journals, "_BLOCK", 32)
    began = time.process_time()
    (again,) = await TaskExecutor().map(text, [1], journal=Journal(path))
    assert len(again) == size
    # 0.02 s; or 16 GB that are copied, if each block is added to those before it.
    assert time.process_time() - began < 0.5


# ---- with other options --------------------------------------------------------------------------


async def test_batches(path: Path) -> None:
    """A line for each item; the function gets those that are not recorded, each once."""
    batches: list[list[int]] = []

    async def double(numbers: list[int]) -> list[int]:
        batches.append(numbers)
        await anyio.sleep(1)
        return [2 * each for each in numbers]

    executor, journal = TaskExecutor(), Journal[int](path)
    assert await executor.map(double, [1, 2, 2, 3, 3, 5], batch=3, journal=journal) == [
        [2, 4, 4],
        [6, 6, 10],
    ]
    assert batches == [[1, 2], [3, 5]]
    batches.clear()
    results = await executor.map(double, [1, 2, 4, 3, 5, 3], batch=3, journal=journal)
    assert (results, batches) == ([[2, 4, 8], [6, 10, 6]], [[4]])
    assert sorted(recorded(path)) == [1, 2, 3, 4, 5]

    # Two batches that wait for each other's items.
    results = await executor.map(double, [10, 11, 12, 12, 13, 10], batch=3, journal=journal)
    assert results == [[20, 22, 24], [24, 26, 20]]


@pytest.mark.parametrize(
    ("returned", "kind", "message"),
    [
        ({}, TypeError, "a batch returned a dict, and the journal '.*' has a line for each of its"),
        ([1], ValueError, "a batch of 2 items returned 1 results, and the journal '.*' has a line"),
    ],
)
async def test_batch_with_other_results(
    path: Path, returned: object, kind: type[Exception], message: str
) -> None:
    """It fails with an error that says what is needed, and nothing is recorded."""

    async def work(_: list[int]) -> object:
        return returned

    executor = TaskExecutor()
    with pytest.raises(kind, match=f"^{message}"):
        await executor.map(work, [1, 2], batch=2, journal=Journal(path))
    assert content(path) == b""


async def test_for_each_of_batches_without_results(path: Path) -> None:
    """A function that returns nothing is recorded with nothing."""

    async def nothing(numbers: list[int]) -> None:
        calls.append(numbers)

    calls: list[list[int]] = []
    for _ in range(2):
        await TaskExecutor().for_each(nothing, [1, 2, 3], batch=2, journal=Journal(path))
    assert calls == [[1, 2], [3]]
    assert [*Journal[None](path).entries()] == [(1, None), (2, None), (3, None)]


@pytest.mark.parametrize("batch", [None, 2])
async def test_flat_streams(path: Path, batch: Any) -> None:
    """The elements of a result are recorded with its item, or each with its item of the batch."""
    calls: list[Any] = []

    async def split(item: Any) -> list[Any]:
        calls.append(item)
        return [10 * each for each in item] if batch else [item, item]

    call: Any = partial(TaskExecutor().stream, split, flatten=True, ordered=True, batch=batch)
    for _ in range(2):
        async with call([1, 2, 3], journal=Journal(path)) as elements:
            found = [element async for element in elements]
        assert found == ([10, 20, 30] if batch else [1, 1, 2, 2, 3, 3])
    assert calls == ([[1, 2], [3]] if batch else [1, 2, 3])


@pytest.mark.parametrize("load", [None, len])
async def test_flat_streams_of_what_is_no_list(path: Path, load: Any) -> None:
    """The error of its item, as if the function had returned that: recorded before, and not."""
    await TaskExecutor().map(abs, [7], journal=Journal(path))

    async def split(item: int) -> list[int]:
        return [item]

    journal = Journal[Any](path, load=load and (lambda held: held if held == 7 else len(held)))
    options: Any = {"flatten": True, "ordered": True, "errors": "return", "journal": journal}
    async with TaskExecutor().stream(split, [7, 8], **options) as elements:
        first, second = [element async for element in elements]
    reason = "the journal '.*' returned {}, an int, and flatten=True is for functions that return"
    with pytest.raises(TypeError, match=reason.format(7)):
        raise first
    if load is None:
        assert second == 8
        return
    with pytest.raises(TypeError, match=reason.format(1)) as raised:
        raise second
    assert "was made, but its result is not recorded" in raised.value.__notes__[0]
    assert recorded(path) == [7]


async def test_messages_are_acknowledged(path: Path) -> None:
    """One that is recorded comes again if it was not acknowledged: then it only is."""
    work, acknowledged = Work(), list[int]()
    for messages in ([1, 2], [2, 3]):
        left = iter(messages)

        async def receive(left: Any = left) -> int:
            await anyio.lowlevel.checkpoint()
            try:
                number: int = next(left)
            except StopIteration:
                raise StopAsyncIteration from None
            return number

        intake = Intake(receive, ack=acknowledged.append)
        await TaskExecutor(1).for_each(work, intake, journal=Journal(path))
    assert (work.taken(), acknowledged) == ([1, 2, 3], [1, 2, 2, 3])


async def test_retries_timeouts_and_threads(path: Path) -> None:
    """What an item's attempts do is inside: it is recorded when the last of them has succeeded."""
    attempts: list[int] = []

    async def slow(number: int) -> int:
        attempts.append(number)
        await anyio.sleep(5 if len(attempts) == 1 else 1)
        return number

    executor, journal = TaskExecutor(), Journal[Any](path)
    call = partial(executor.map, slow, [1], journal=journal, timeout=2)
    assert await call(retry=Retry(attempts=2)) == [1]
    assert attempts == [1, 1]
    assert await executor.map(str, [1, 2], journal=journal) == [1, "2"]  # 1 is recorded as 1
    assert await executor.map(str, [2, 3], journal=journal, retry=2) == ["2", "3"]


async def test_until(path: Path) -> None:
    """What is not taken any more is called by the next run."""
    work, event = Work(), anyio.Event()
    async with anyio.create_task_group() as group:

        async def set_later() -> None:
            await anyio.sleep(2.5)
            event.set()

        group.start_soon(set_later)
        call = partial(TaskExecutor(1).map, work, range(5), journal=Journal[Any](path))
        assert len(await call(until=event.wait)) == 3
    assert await call() == [[item, 10 * item] for item in range(5)]
    assert work.taken() == [0, 1, 2, 3, 4]


# ---- the file ------------------------------------------------------------------------------------


async def test_torn_at_any_byte(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However little of the last line was written, the next run goes on with a whole file."""
    caplog.set_level(logging.WARNING)
    executor = TaskExecutor()
    journal = Journal[Any](path)

    async def work(item: str) -> list[str]:
        calls.append(item)
        return [item, "é}"]

    calls: list[str] = []
    words = ["x", "ü"]
    await executor.for_each(work, words, journal=journal)
    written = content(path)
    first = written.index(b"\n") + 1
    for size in range(len(written)):
        for left in (written[:size], written[:size] + b"\0" * 5):
            put(path, left)
            calls.clear()
            caplog.clear()
            assert await executor.map(work, words, journal=journal) == [["x", "é}"], ["ü", "é}"]]
            there = (size >= first - 1) + (size >= len(written) - 1)
            assert calls == words[there:], left
            assert content(path) == written, left
            is_cut = size not in (0, first - 1, first, len(written) - 1) or left.endswith(b"\0")
            assert bool(caplog.records) <= is_cut


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"key": 1, "value": 2}\n{"key": 1, "va\n', "line 2 of the journal '.*' is not what a"),
        (b'{"key": 1}\n', r"line 1 of the journal '.*' is not what a .* \(KeyError: 'value'\)"),
        (b'{"key": [], "value": 2}\n', r"line 1 .* \(its key is a list\)"),
        (b'{"key": true, "value": 2}\n', r"line 1 .* \(its key is a bool\)"),
        (b"[1]\n", "line 1 of"),
        (b"\xff\n", "line 1 of"),
        (b"some text of somebody's", "line 1 of"),
        (b'{"id": 1}', "line 1 of"),
        (b'{"key": "of a settings file"}', "line 1 of"),
    ],
)
async def test_what_is_no_journal(path: Path, data: bytes, message: str) -> None:
    """A file that was not written by a journal is refused, and left as it is."""
    put(path, data)
    with pytest.raises(ValueError, match=f"^{message}"):
        await TaskExecutor().map(Work(), [1], journal=Journal(path))
    assert content(path) == data
    if data.endswith(b"\n"):
        with pytest.raises(ValueError, match=f"^{message}"):
            list(Journal[Any](path).entries())


async def test_lines_of_others(path: Path) -> None:
    """Empty lines and other fields do no harm; of the lines with one key the last counts."""
    lines = [b'{"value": 1, "key": "a", "more": 0}', b"", b'{"key": "a", "value": 2}', b"  "]
    put(path, b"\n".join([*lines, b""]))
    journal = Journal[int](path)
    assert await TaskExecutor().map(Work(), ["a"], journal=journal) == [2]
    assert [*journal.entries()] == [("a", 1), ("a", 2)]


async def test_one_call_at_a_time(path: Path) -> None:
    """Another call is refused while one uses the file, and may use it afterwards."""
    executor, journal = TaskExecutor(), Journal[Any](path)
    async with executor.stream(Work(), [1], journal=journal) as results:
        await anyio.sleep(0.5)
        with pytest.raises(RuntimeError, match=r"^the journal '.*' is in use by another call, or"):
            await executor.map(Work(), [2], journal=Journal(path))
        assert [result async for result in results] == [[1, 10]]
    assert await executor.map(Work(), [2], journal=journal) == [[2, 20]]


async def test_stream_that_is_left(path: Path) -> None:
    """What had ended is recorded, and the file is free again at the end of the block."""
    executor, journal = TaskExecutor(), Journal[Any](path)
    async with executor.stream(Work(), range(10), journal=journal, limit=2) as results:
        async for _ in results:
            break
    assert set(recorded(path)) <= {0, 1}
    async with executor.stream(Work(), [0], journal=journal) as results:
        pass  # left before it began
    await executor.map(Work(), [0], journal=journal)


async def test_path(tmp_path: Path) -> None:
    """What cannot be a journal's file is refused; a missing folder is the system's error."""
    executor = TaskExecutor()
    with pytest.raises(ValueError, match=r"^the journal '.*' is not a regular file. Pass"):
        await executor.map(Work(), [1], journal=Journal(tmp_path))
    with pytest.raises(FileNotFoundError, match=r": '.*out\.jsonl'$"):
        await executor.map(Work(), [1], journal=Journal(tmp_path / "no" / "out.jsonl"))
    assert not [*Journal[Any](tmp_path / "none").entries()]


async def test_cancelled_while_the_file_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reads it is told, and the file is free again."""
    begun, go_on = threading.Event(), threading.Event()

    def check() -> None:
        begun.set()
        assert go_on.wait(10)
        from_thread.check_cancelled()

    put(path, b'{"key": 1, "value": 2}\n' * 2500)
    monkeypatch.setattr(journals, "from_thread", SimpleNamespace(check_cancelled=check))
    executor, journal = TaskExecutor(), Journal[Any](path)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(executor.map, Work(), [1], journal=journal))
        while not begun.is_set():
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
        go_on.set()
    assert await executor.map(Work(), [1], journal=journal) == [2]


async def test_thread_that_comes_late(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins when the call is over already does not open the file."""
    late: list[Callable[[], object]] = []

    async def run_late(work: Callable[[], object], *, limiter: object) -> None:
        del limiter
        late.append(work)
        if len(late) == 1:
            await anyio.sleep_forever()
        work()

    monkeypatch.setattr(journals, "to_thread", SimpleNamespace(run_sync=run_late))
    with anyio.move_on_after(1):
        await TaskExecutor().map(Work(), [1], journal=Journal(path))
    late[0]()
    assert not path.exists()  # noqa: ASYNC240 - one look


@pytest.mark.parametrize("line", ["", "not a journal\n"], ids=["until", "broken"])
async def test_source_of_which_nothing_is_read_is_closed(path: Path, line: str) -> None:
    """A generator is closed by a call that ends before it reads from it."""
    await anyio.Path(path).write_text(line)
    over, closed = anyio.Event(), anyio.Event()
    over.set()

    async def source() -> AsyncIterator[int]:
        try:
            for item in range(3):
                yield item
        finally:
            closed.set()

    items = source()
    assert await anext(items) == 0
    with pytest.raises(ValueError, match=r"^line 1 of") if line else nullcontext():
        await TaskExecutor().map(Work(), items, journal=Journal(path), until=over.wait)
    assert closed.is_set()


@pytest.mark.parametrize("opens", [True, False], ids=["opens", "works"])
def test_event_loop_that_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, opens: bool
) -> None:
    """The file is closed without one."""
    work, executor = Work(seconds=1e9), TaskExecutor()
    reached, go_on = work.calls, threading.Event()

    def wait(_: object) -> None:
        reached.append(1)
        go_on.wait()

    if opens:
        monkeypatch.setattr(journals.Recording, "_open", wait)
    call = executor.map(work, [1], journal=Journal(path))
    # AnyIO's worker threads outlive such a loop. Those of a daemon do not keep the process alive.
    daemon = threading.Thread(target=leave_waiting, args=(call, lambda: reached), daemon=True)
    daemon.start()
    daemon.join()
    with suppress(RuntimeError):  # of AnyIO's task group, which asks for the loop
        call.close()
    go_on.set()
    monkeypatch.undo()
    assert run(partial(executor.map, Work(), [1], journal=Journal[Any](path))) == [[1, 10]]


def test_event_loop_that_is_closed_at_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file is being opened: nothing is awaited any more."""
    opening: list[object] = []

    async def run_never(work: object, *, limiter: object) -> None:
        opening.append((work, limiter))
        await anyio.sleep_forever()

    monkeypatch.setattr(journals, "to_thread", SimpleNamespace(run_sync=run_never))
    call = TaskExecutor().map(Work(), [1], journal=Journal(path))
    leave_waiting(call, lambda: opening)
    call.close()
    assert len(opening) == 1
    assert not path.exists()


async def test_file_that_others_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is gone, though it was there, is an error."""
    monkeypatch.setattr(journals, "_BLOCK", 10)
    journal = Journal[Any](path)
    await TaskExecutor().map(Work(), [1, 2], journal=journal)

    def items() -> Iterator[int]:
        yield 1
        put(path, b"")
        yield 2

    with pytest.raises(RuntimeError, match=r"^the journal '.*' was changed by others while"):
        await TaskExecutor().map(Work(), items(), journal=journal)


@pytest.mark.parametrize("fsync", [False, True])
async def test_lines_are_written_together(
    path: Path,
    fsync: bool,  # noqa: FBT001 - a parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines that are ready while the disk is busy are written at once; then they are given."""
    written: list[bytes] = []
    go_on = threading.Event()

    class Slow(FileIO):
        def write(self, data: Any, /) -> int:
            assert go_on.wait(10)
            written.append(bytes(data))
            return super().write(bytes(data)[:20])  # as a disk that is almost full may do

    monkeypatch.setattr(journals, "FileIO", Slow)
    results: list[Any] = []

    async def read() -> None:
        journal = Journal[Any](path, fsync=fsync)
        call = partial(TaskExecutor().stream, Work(seconds=0), range(5), journal=journal)
        async with call(timeout=1) as stream:
            async for result in stream:
                assert written
                results.append(result)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for _ in range(100):  # the event loop goes on meanwhile
            await anyio.lowlevel.checkpoint()
        assert not written
        go_on.set()
    assert len(results) == 5
    assert sorted(recorded(path)) == [0, 1, 2, 3, 4]  # trio runs tasks in any order
    assert len({len(each) for each in written}) < 5 * 2


class Full(FileIO):
    """A file on a disk that is full after so many writes."""

    left = 0
    is_broken = False
    """Whether it cannot be cut either."""

    def write(self, data: Any, /) -> int:
        """Write a few bytes, and then no more."""
        if Full.left == 0:
            raise OSError(28, "No space left on device")
        Full.left -= 1
        return super().write(bytes(data)[:10])

    def truncate(self, size: int | None = None, /) -> int:
        """Cut the file."""
        if self.is_broken:
            raise OSError(5, "Input/output error")
        return super().truncate(size)


@pytest.mark.parametrize("errors", ["raise", "collect", "return"])
@pytest.mark.parametrize("is_broken", [False, True])
async def test_full_disk(
    path: Path,
    errors: Any,
    is_broken: bool,  # noqa: FBT001 - a parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The call ends with the system's error, whatever it does about errors of items."""
    monkeypatch.setattr(Full, "left", 4)
    monkeypatch.setattr(Full, "is_broken", is_broken)
    monkeypatch.setattr(journals, "FileIO", Full)
    work, executor = Work(), TaskExecutor(1)
    with pytest.raises(OSError, match=rf"^\[Errno 28\] .*: '{re.escape(str(path))}'") as caught:
        await executor.map(work, range(10), journal=Journal(path), errors=errors)
    assert caught.value.__notes__[0].startswith("the call for [1] was made, but its result is not")
    assert work.taken() == [0, 1]
    monkeypatch.undo()
    if not is_broken:
        assert recorded(path) == [0]
    assert len(await executor.map(work, range(3), journal=Journal(path))) == 3
    assert work.taken() == [1, 2]


async def test_torn_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written behind a line that was written in part and cannot be cut off."""
    writing, go_on = threading.Event(), threading.Event()

    class Broken(Full):
        def write(self, _data: Any, /) -> int:
            if writing.is_set():
                raise NotImplementedError
            writing.set()
            assert go_on.wait(10)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Full, "is_broken", True)
    monkeypatch.setattr(journals, "FileIO", Broken)

    async def work(number: int) -> int:
        while number and not writing.is_set():
            await anyio.lowlevel.checkpoint()
        if number:
            go_on.set()
        return number

    with pytest.raises(ExceptionGroup) as caught:
        await TaskExecutor().map(work, [0, 1], journal=Journal(path))
    assert [type(each) for each in caught.value.exceptions] == [OSError, OSError]


class Held(FileIO):
    """A file whose first write takes until it may go on."""

    writing: threading.Event
    go_on: threading.Event
    error: OSError | None
    """What the others meet."""

    def write(self, data: Any, /) -> int:
        """Write, or fail."""
        if Held.writing.is_set() and Held.error is not None:
            raise Held.error
        Held.writing.set()
        assert Held.go_on.wait(10)
        return super().write(data)


async def one_waits(number: int) -> int:
    """Return, the second time when the first result is being written."""
    while number and not Held.writing.is_set():
        await anyio.lowlevel.checkpoint()
    return number


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file held up."""
    monkeypatch.setattr(journals, "FileIO", Held)
    Held.writing, Held.go_on, Held.error = threading.Event(), threading.Event(), None


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("error", [None, OSError(28, "No space left on device")])
async def test_cancelled_while_it_writes(path: Path, error: OSError | None) -> None:
    """What was paid for is recorded all the same; if that fails, the call says so."""
    Held.error = error
    errors: list[BaseException] = []

    async def run_it() -> None:
        try:
            await TaskExecutor().map(one_waits, [0, 1], journal=Journal(path))
        except OSError as caught:
            errors.append(caught)

    async with anyio.create_task_group() as group:
        group.start_soon(run_it)
        while not Held.writing.is_set():
            await anyio.lowlevel.checkpoint()
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
        Held.go_on.set()
    assert recorded(path) == ([0, 1] if error is None else [0])
    assert len(errors) == (error is not None)


@pytest.mark.usefixtures("held")
def test_every_task_is_cancelled(path: Path) -> None:
    """When asyncio ends all tasks, each for itself, what was paid for is recorded."""

    async def main() -> None:
        call = TaskExecutor().map(one_waits, [0, 1], journal=Journal(path))
        task = asyncio.create_task(call)
        while not Held.writing.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        Held.go_on.set()
        await asyncio.wait([task])

    asyncio.run(main())
    assert recorded(path) == [0, 1]


# ---- arguments -----------------------------------------------------------------------------------


async def asynchronous(_: object) -> Any:
    """Stand for a hook that cannot be one."""


make_any: Any = Journal
map_any: Any = TaskExecutor().map


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: make_any(3), TypeError, "path=3 is an int, not a path. Pass"),
        (lambda: make_any("x", key=3), TypeError, "key=3 is an int, which is not callable. Pass"),
        (lambda: make_any("x", dump=asynchronous), TypeError, "dump=<.*> is async, and would not"),
        (lambda: make_any("x", fsync=1), TypeError, "fsync=1 is an int, not a bool. Pass"),
    ],
)
def test_arguments(make: Callable[[], object], kind: type[Exception], message: str) -> None:
    """What makes no sense is refused when it is passed."""
    with pytest.raises(kind, match=f"^{message}"):
        make()
    assert repr(Journal("x")) == "<Journal 'x'>"


async def test_option_that_is_no_journal() -> None:
    """A path alone is refused."""
    with pytest.raises(TypeError, match=r"^journal='x' is a str. Pass a mtaio.core.Journal, or"):
        await map_any(Work(), [1], journal="x")
