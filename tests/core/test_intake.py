"""Sources with acknowledgement: every message that is taken gets one answer, and the right one."""

from __future__ import annotations

import asyncio
import gc
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio._internal import loops
from mtaio._internal.backend import is_asyncio
from mtaio.core import Intake, Journal, Retry, TaskExecutor, merge
from mtaio.core._intake import Acknowledgement, Taken
from mtaio.exceptions import StrayCancellationError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resources import TimeoutManager, time_left
from mtaio.testing import run, settle
from tests.backends import BACKENDS
from tests.core.broker import Broker
from tests.core.manual_pool import ManualPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ITEMS = 10


# ---- however a call ends -------------------------------------------------------------------------

Method = Literal["map", "for_each", "stream", "ordered"]
Stop = Literal["nothing", "scope", "native", "item", "until", "progress", "break"]
Errors = Literal["raise", "collect", "handle"]


@dataclass(frozen=True)
class Case:
    """One call, and how it is stopped."""

    method: Method
    stop: Stop
    errors: Errors
    limit: int | None
    max_workers: int | None
    busy: bool
    many: int
    batch: int | None
    every: float
    seconds: float
    timeout: float | None
    rate: float | None
    attempts: int
    at: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a call; moments are quarters, so that much happens at the same one."""
    method = draw(st.sampled_from(get_args(Method)))
    stops: list[Stop] = [*get_args(Stop)][: None if method in {"stream", "ordered"} else -1]
    return Case(
        method=method,
        stop=draw(st.sampled_from(stops)),
        errors=draw(st.sampled_from(get_args(Errors) if method != "map" else ["raise", "collect"])),
        limit=draw(st.sampled_from([None, 1, 2, 5])),
        max_workers=draw(st.sampled_from([None, 1, 3])),
        busy=draw(st.booleans()),
        many=draw(st.sampled_from([0, 0, 1, 4])),
        batch=draw(st.sampled_from([None, None, 3])),
        every=draw(st.sampled_from([0, 0.25])),
        seconds=draw(st.sampled_from([0, 0.25, 0.5])),
        timeout=draw(st.sampled_from([None, 0.25, 1])),
        rate=draw(st.sampled_from([None, 4])),
        attempts=draw(st.sampled_from([1, 2])),
        at=draw(st.integers(0, ITEMS)),
    )


class Play:
    """Runs a case, and holds the broker's answers against what became of each message."""

    def __init__(self, case: Case) -> None:
        self.case = case
        ends = case.stop not in {"scope", "native", "until"}
        self.broker = Broker(range(ITEMS), every=case.every, many=case.many, ends=ends)
        self.executor = TaskExecutor(case.max_workers)
        self.done: list[int] = []
        self.handled: list[int] = []

    async def work(self, item: int | list[int]) -> None:
        """Do a message or a batch of them, unless one is bad."""
        messages = item if isinstance(item, list) else [item]
        await anyio.sleep(self.case.seconds)
        if self.case.stop == "item" and self.case.at in messages:
            raise OSError(messages)
        self.done.extend(messages)

    def handle(self, item: int | list[int], _error: Exception) -> None:
        """Note what failed."""
        self.handled.extend(item if isinstance(item, list) else [item])

    def report(self, done: int, _total: int | None) -> None:
        """Fail when so many are done."""
        if self.case.stop == "progress" and done > self.case.at:
            raise LookupError(done)

    async def call(self) -> None:
        """Make the call."""
        case = self.case
        options: dict[str, Any] = {
            "limit": case.limit,
            "rate": case.rate,
            "timeout": case.timeout,
            "retry": Retry(case.attempts, waits=[0.25], jitter=0),
            "errors": self.handle if case.errors == "handle" else case.errors,
            "on_progress": self.report,
            "batch": case.batch,
            "within": None if case.batch is None else 0.25,
        }
        if case.stop == "until":
            options["until"] = partial(anyio.sleep, case.at / 4)
        call: Any = getattr(self.executor, case.method.replace("ordered", "stream"))
        if case.method in {"map", "for_each"}:
            await call(self.work, self.broker.intake(), **options)
            return
        ordered, seen = case.method == "ordered", 0
        async with call(self.work, self.broker.intake(), ordered=ordered, **options) as results:
            async for _ in results:
                seen += 1
                if case.stop == "break" and seen > case.at:
                    break

    async def occupy(self) -> None:
        """Take slots from the call now and then."""
        for _ in range(4):
            await self.executor.map(anyio.sleep, [0.25, 0.5])

    async def stopped(self) -> None:
        """Make the call and stop it."""
        at = self.case.at / 4
        if self.case.stop == "scope":
            with anyio.move_on_after(at):
                await self.call()
        elif self.case.stop == "native" and is_asyncio(loops.current_loop()):
            task = asyncio.ensure_future(self.call())
            await anyio.sleep(at)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
        elif self.case.stop == "native":
            with anyio.move_on_after(at):
                await self.call()
        else:
            await self.call()

    async def __call__(self) -> None:
        """Run the case, and see that each message that was taken has its answer."""
        case, broker = self.case, self.broker
        async with anyio.create_task_group() as group:
            if case.busy:
                group.start_soon(self.occupy)
                await settle()
            try:
                await self.stopped()
            except* (OSError, LookupError):  # a TimeoutError is an OSError
                pass
            group.cancel_scope.cancel()
        answered = [*broker.acked, *(message for message, _ in broker.nacked)]
        assert sorted([*answered, *broker.left]) == list(range(ITEMS))
        assert broker.hand == set()
        assert sorted(self.done) == sorted(broker.acked)
        if case.errors == "handle":
            assert sorted(self.handled) == broker.failed()
        elif case.errors == "raise" and case.stop != "progress":
            assert bool(broker.failed()) <= (case.stop == "item" or case.timeout is not None)
        most = min(case.limit or 100, case.max_workers or 100) + case.busy
        if case.batch is not None:
            most = (most + 1) * case.batch  # one is filled meanwhile
        assert broker.most <= most + max(case.many - 1, 0)
        assert self.executor.statistics().in_flight == 0
        assert self.executor.statistics().in_use == 0


@pytest.mark.heavy
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_every_message_has_one_answer(backend: str, case: Case) -> None:
    """However a call ends: ack what succeeded, nack what failed, and give back all the rest."""
    run(Play(case), backend=backend)


# ---- when a message is taken ---------------------------------------------------------------------


async def test_received_when_there_is_room() -> None:
    """The answer comes first: with a limit of one the next message stays where it is till then."""
    broker, events = Broker(range(3)), list[str]()

    async def handle(message: int) -> None:
        events.append(f"begin {message}")
        await anyio.sleep(1)
        events.append(f"end {message}")

    async def receive() -> int:
        message = await broker.receive()
        events.append(f"take {message}")
        return message

    async def ack(message: int) -> None:
        await broker.ack(message)
        events.append(f"ack {message}")

    await TaskExecutor().for_each(handle, Intake(receive, ack), limit=1)
    steps = ["take", "begin", "end", "ack"]
    assert events == [f"{step} {message}" for message in range(3) for step in steps]


async def test_nothing_in_hand_while_others_have_the_slots() -> None:
    """A call that gets no slot receives nothing; one whose slot goes meanwhile has one message."""
    executor, broker, begun = TaskExecutor(2), Broker(range(9), every=1), list[int]()

    async def handle(message: int) -> None:
        begun.append(message)

    async def other_call() -> None:
        await executor.map(anyio.sleep, [10, 10])

    async with anyio.create_task_group() as group:
        group.start_soon(other_call)
        await settle()
        group.start_soon(executor.for_each, handle, broker.intake())
        await anyio.sleep(9)
        assert len(broker.left) == 9
        await anyio.sleep(1.5)  # a slot is free, and the call waits for a message
        group.start_soon(other_call)
        await anyio.sleep(8)
        assert broker.hand == {0}
        group.cancel_scope.cancel()
    assert (broker.nacked, begun) == ([(0, None)], [])


async def test_no_more_in_hand_than_the_limit() -> None:
    """In a stream too, whose consumer is slow; many at once are in hand together."""
    for many, most in ((0, 3), (5, 3 + 4)):
        broker = Broker(range(50), many=many)
        async with TaskExecutor().stream(anyio.sleep, broker.intake(), limit=3) as results:
            async for _ in results:
                await anyio.sleep(0.1)
        assert broker.most <= most
        assert sorted(broker.acked) == list(range(50))


async def take_a_while(_: int) -> None:
    """Take more than half a second."""
    await anyio.sleep(0.6)


async def test_many_that_are_left() -> None:
    """What was received along and is not begun goes back when the call ends."""
    broker = Broker(range(9), many=5)
    with anyio.move_on_after(1):
        await TaskExecutor().for_each(take_a_while, broker.intake(), limit=2)
    assert sorted(broker.acked) == [0, 1]
    assert broker.returned() == [2, 3, 4]
    assert list(broker.left) == [5, 6, 7, 8]


async def test_many_may_be_none() -> None:
    """An empty list means that there is nothing yet."""
    lists = [[], [1, 2], [], [3]]

    async def receive() -> list[int]:
        if not lists:
            raise StopAsyncIteration
        return lists.pop(0)

    async def same(message: int) -> int:
        return message

    assert await TaskExecutor().map(same, Intake(receive, many=True)) == [1, 2, 3]


# ---- how it is answered --------------------------------------------------------------------------


async def fails(message: int) -> None:
    """Fail."""
    await checkpoint()
    raise LookupError(message)


async def test_failure_is_given_back_after_the_last_attempt() -> None:
    """Once, with the error that the call reports."""
    broker = Broker([7])
    with pytest.raises(LookupError) as info:
        await TaskExecutor().for_each(fails, broker.intake(), retry=3)
    assert broker.nacked == [(7, info.value)]
    assert any(note.startswith("in item 0: fails(7)") for note in info.value.__notes__)


@pytest.mark.parametrize("retry", [None, 2])
async def test_timeout_does_not_cover_the_answer(retry: int | None) -> None:
    """An item that is out of time is given back with that error; the answer takes its own time."""
    broker, slow = Broker([0, 5]), list[int]()

    async def ack(message: int) -> None:
        await anyio.sleep(3)
        slow.append(message)

    with pytest.raises(TimeoutError) as info:
        await TaskExecutor().for_each(
            anyio.sleep,
            Intake(broker.receive, ack, broker.nack),
            timeout=2,
            retry=retry,
            errors="collect",
        )
    assert slow == [0]
    ((message, error),) = broker.nacked
    assert message == 5
    assert isinstance(error, MTAIOTimeoutError)
    assert info.value is error


async def test_plain_functions() -> None:
    """A thread that has come to its end is acknowledged, and one that was not begun given back."""
    broker, go, began = Broker(range(4)), threading.Event(), anyio.Event()
    loop = loops.current_loop()

    def work(_: int) -> None:
        loops.call_in(loop, began.set)
        go.wait(10)

    async def stop() -> None:
        await began.wait()
        group.cancel_scope.cancel()
        go.set()

    async with anyio.create_task_group() as group:
        group.start_soon(stop)
        await TaskExecutor(threads=1).for_each(work, broker.intake(), rate=100, limit=3)
    assert broker.acked == [0]
    assert set(broker.returned()) | set(broker.left) == {1, 2, 3}


async def test_pool() -> None:
    """A call that goes on in a pool after a cancellation is given back all the same."""
    broker, pool = Broker(range(6)), ManualPool()
    async with anyio.create_task_group() as group:
        group.start_soon(
            partial(TaskExecutor().for_each, int, broker.intake(), via=pool, chunksize=2, limit=4)
        )
        await settle()
        pool.sent[0].end()
        assert pool.sent[1].begin()
        await settle()
        group.cancel_scope.cancel()
    assert sorted(broker.acked) == [0, 1]
    assert broker.returned() == sorted({2, 3, 4, 5} - set(broker.left))
    assert {2, 3} <= set(broker.returned())


async def test_never_begun() -> None:
    """What waits for its token when the call ends is given back, and the function is not called."""
    broker, begun = Broker(range(5)), list[int]()

    async def work(message: int) -> None:
        begun.append(message)
        await anyio.sleep_forever()

    with anyio.move_on_after(1.5):
        await TaskExecutor().for_each(work, broker.intake(), rate=1, limit=4)
    assert begun == [0, 1]
    assert broker.returned() == [0, 1, 2, 3]


async def test_answers_may_be_plain_or_left_out() -> None:
    """As with a queue, which only wants to hear of what is done."""
    broker, done = Broker(range(4)), list[int]()

    async def odd(message: int) -> None:
        if message % 2:
            raise LookupError

    intake = Intake(broker.receive, done.append)
    with pytest.raises(ExceptionGroup, match=r"^2 errors in one call"):
        await TaskExecutor().for_each(odd, intake, errors="collect")
    assert sorted(done) == [0, 2]


async def test_ack_that_fails() -> None:
    """Its error is the item's, with a note, and there is no second answer; others go on."""
    broker, seen = Broker(range(3)), list[tuple[int, Exception]]()

    async def ack(message: int) -> None:
        if message == 1:
            raise ConnectionError("the broker is gone")
        await broker.ack(message)

    def handle(message: int, error: Exception) -> None:
        seen.append((message, error))

    await TaskExecutor().for_each(
        anyio.sleep, Intake(broker.receive, ack, broker.nack), errors=handle
    )
    ((message, error),) = seen
    assert message == 1
    assert str(error) == "the broker is gone"
    assert error.__notes__[0].startswith("ack() failed after the function had succeeded")
    assert broker.nacked == []
    assert broker.acked == [0, 2]


async def test_ack_that_hangs() -> None:
    """It is interrupted after its grace, shielded before: an error, also of a cancelled call."""
    broker = Broker([0])
    intake = Intake(broker.receive, lambda _: anyio.sleep_forever(), grace=2)
    with pytest.raises(TimeoutError, match=r"^ack\(\) did not end within"), anyio.move_on_after(1):
        await TaskExecutor().for_each(anyio.sleep, intake)
    assert anyio.current_time() == 2


async def test_ack_that_hangs_in_a_batch() -> None:
    """The others of its batch are answered all the same, also those that come after it."""
    broker = Broker(range(5))

    async def ack(message: int) -> None:
        await broker.ack(message)
        if message == 1:
            await anyio.sleep_forever()

    intake = Intake(broker.receive, ack, grace=2)
    with pytest.raises(TimeoutError, match=r"within grace=2 s, for 3 of 4"):
        await TaskExecutor().for_each(no_matter, intake, batch=4, limit=1)
    # For 2 and 3 the time is up as they begin: what can be done without waiting is done.
    assert (broker.acked, broker.hand) == ([0, 1], set())
    assert anyio.current_time() == 2


async def no_matter(_: list[int]) -> None:
    """Do nothing."""


async def test_batch_with_items_of_other_sources() -> None:
    """Cancelled before it begins, it is begun: those items have nobody to be given back to."""
    broker, seen = Broker(range(9), every=1), list[list[Any]]()

    async def others() -> AsyncIterator[str]:
        await anyio.sleep(1.5)
        yield "other"
        await anyio.sleep_forever()

    async def handle(items: list[Any]) -> None:
        seen.append(items)
        await checkpoint()

    with anyio.move_on_after(2.5):
        await TaskExecutor().for_each(handle, merge(broker.intake(), others()), batch=9)
    assert seen == [[0, "other", 1]]
    assert broker.returned() == [0, 1]


@pytest.mark.parametrize("retry", [None, 2])
async def test_others_that_wait_for_a_token(retry: int | None) -> None:
    """Cancelled, what came from other sources is begun, and messages are given back unbegun."""
    broker, taken, begun = Broker(range(9), every=1), list[str](), list[object]()

    async def others() -> AsyncIterator[str]:
        for item in "ab":
            await anyio.sleep(1)
            taken.append(item)
            yield item
        await anyio.sleep_forever()

    async def handle(item: object) -> None:
        begun.append(item)
        await checkpoint()

    source: Any = merge(others(), broker.intake())
    with anyio.move_on_after(2.5):
        await TaskExecutor().for_each(handle, source, rate=1 / 9, limit=9, retry=retry)
    assert [item for item in begun if isinstance(item, str)] == taken == ["a", "b"]
    assert broker.returned() == [0, 1]
    assert {0, 1}.isdisjoint(begun)


async def test_the_time_of_an_answer() -> None:
    """What it sees of limits is its own, and not that which cancelled the item."""
    left: list[float] = []
    intake = Intake(Broker([5]).receive, nack=lambda *_: left.append(time_left()), grace=2)
    with pytest.raises(TimeoutError), TimeoutManager()(1):
        await TaskExecutor().for_each(anyio.sleep, intake)
    assert left == [2]


async def test_nack_that_fails() -> None:
    """It is a note on the item's own error; where there is none, its own error is raised."""

    async def nack(_message: int, _error: Exception | None) -> None:
        await checkpoint()
        raise ConnectionError("the broker is gone")

    with pytest.raises(LookupError, match=r"^0\b") as info:
        await TaskExecutor().for_each(fails, Intake(Broker([0]).receive, nack=nack))
    assert info.value.__notes__[0].startswith("nack() failed as well")
    with pytest.raises(ConnectionError, match=r"^the broker is gone\b"), anyio.move_on_after(1):
        await TaskExecutor().for_each(anyio.sleep, Intake(Broker([5]).receive, nack=nack))


async def test_cancellation_out_of_the_blue() -> None:
    """A broker's client, or a function, that raises the backend's cancellation: an error."""
    cancelled = anyio.get_cancelled_exc_class()
    if not is_asyncio(loops.current_loop()):
        return  # trio's cannot be made

    async def lost(*_: object) -> None:
        await checkpoint()
        raise cancelled

    with pytest.raises(StrayCancellationError, match=r"^ack\(\) raised CancelledError"):
        await TaskExecutor().for_each(anyio.sleep, Intake(Broker([0]).receive, lost))
    broker = Broker([0])
    with pytest.raises(StrayCancellationError, match=r"lost raised CancelledError"):
        await TaskExecutor().for_each(lost, broker.intake())
    assert isinstance(broker.nacked[0][1], StrayCancellationError)
    # A cancellation of the task itself goes through: asyncio.run sends it at the end.
    item = Taken(0, Intake(Broker([0]).receive, lambda _: anyio.sleep(1)))
    task = asyncio.ensure_future(around(anyio.sleep)(item))
    await anyio.sleep(0.5)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_cancelled_natively_while_giving_back() -> None:
    """What waits in hand is given back though asyncio's cancellation comes a second time."""
    if not is_asyncio(loops.current_loop()):
        return
    executor, broker = TaskExecutor(1), Broker(range(3), every=1)

    async def nack(message: int, error: Exception | None) -> None:
        await anyio.sleep(1)
        await broker.nack(message, error)

    task = asyncio.ensure_future(
        executor.for_each(anyio.sleep, Intake(broker.receive, broker.ack, nack))
    )
    await settle()
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, anyio.sleep, 9)  # takes the slot while it is received
        await anyio.sleep(2)
        task.cancel()
        await anyio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        assert broker.nacked == [(0, None)]
        group.cancel_scope.cancel()


async def test_loop_that_is_over() -> None:
    """A coroutine that is closed awaits nothing more."""
    broker = Broker([0])
    item = Taken(await broker.receive(), broker.intake())
    call = around(lambda _: anyio.sleep(1))(item)
    call.send(None)
    call.close()
    assert broker.hand == {0}


async def test_function_that_raises_what_only_the_loop_does() -> None:
    """The call ends with an error, which is that of the message."""
    broker = Broker([0])

    async def close(_: int) -> None:
        await checkpoint()
        raise GeneratorExit

    with pytest.raises(RuntimeError, match=r"close raised GeneratorExit, which would end"):
        await TaskExecutor().for_each(close, broker.intake())
    ((message, error),) = broker.nacked
    assert message == 0
    assert isinstance(error, RuntimeError)


@pytest.mark.parametrize("outcome", ["ack", "nack"])
async def test_batches(outcome: str) -> None:
    """Each item of a list is answered, others than messages are left out, errors make a group."""
    broker = Broker(range(3))
    taken = [Taken(await broker.receive(), broker.intake()) for _ in range(3)]
    broker.hand.remove(1)  # so that its answer fails
    acknowledgement = Acknowledgement(anyio.sleep, batched=True)
    got: list[list[Any]] = []

    async def work(batch: list[Any]) -> None:
        got.append(batch)
        await checkpoint()
        if outcome == "nack":
            raise LookupError

    with pytest.raises(KeyError if outcome == "ack" else LookupError) as info:
        await acknowledgement.around(work, work)([*taken, "other"])
    assert got == [[0, 1, 2, "other"]]
    assert broker.hand == set()
    assert broker.acked == ([0, 2] if outcome == "ack" else [])
    assert broker.failed() == ([0, 2] if outcome == "nack" else [])
    assert len(info.value.__notes__) == 1


async def test_journal(tmp_path: Path) -> None:
    """A message is recorded before it is acknowledged; one that is recorded is not done again."""
    journal, done = Journal[int](tmp_path / "done.jsonl"), list[int]()

    async def work(message: int) -> int:
        done.append(message)
        return message

    async def lost(_: int) -> None:
        raise ConnectionError("the broker is gone")

    with pytest.raises(ConnectionError):
        await TaskExecutor().map(work, Intake(Broker([1]).receive, lost), journal=journal)
    broker = Broker([1, 2])
    async with TaskExecutor().stream(
        work, broker.intake(), journal=journal, outcomes=True, ordered=True, limit=1
    ) as outcomes:
        assert [(each.item, each.value) async for each in outcomes] == [(1, 1), (2, 2)]
    assert (done, broker.acked) == ([1, 2], [1, 2])


class Messages:
    """A source with ack and nack of its own, whose iterator is no generator."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.ack = broker.ack
        self.nack = broker.nack

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        return await self._broker.receive()


async def test_any_source_with_ack_and_nack() -> None:
    """No base class: an async iterable with the two methods."""
    broker = Broker(range(5))
    async with TaskExecutor().stream(
        anyio.sleep, Messages(broker), limit=2, outcomes=True, ordered=True, timeout=2.5
    ) as outcomes:
        ended = [(each.item, type(each.error)) async for each in outcomes]
    assert ended == [
        *((item, type(None)) for item in (0, 1, 2)),
        *((item, MTAIOTimeoutError) for item in (3, 4)),
    ]
    assert broker.acked == [0, 1, 2]
    assert broker.failed() == [3, 4]


@pytest.mark.parametrize("batch", [None, 2])
async def test_merged_sources(batch: int | None) -> None:
    """Each gets the answers to its own messages, whatever they equal; others get none."""
    one, two = Broker([0, 1, 2, 3], every=1, ends=False), Broker([0, 1, 2, 3], every=1, ends=False)

    async def work(item: Any) -> None:
        await anyio.sleep(0.5)
        if {1, "x"} & set(item if isinstance(item, list) else [item]):
            raise LookupError

    failed: list[Any] = []
    options: dict[str, Any] = {} if batch is None else {"batch": batch, "within": 0.25}
    with anyio.move_on_after(3.25):
        await TaskExecutor().for_each(
            work,
            merge(one.intake(), merge(two.intake(), ["x"])),
            errors=lambda item, _: failed.append(item),
            **options,
        )
    for broker in (one, two):
        assert broker.hand == set()
        assert sorted(broker.acked) == [0]
        assert broker.failed() == [1]
        assert broker.returned() == [2]
        assert list(broker.left) == [3]
    assert failed == (["x", 1, 1] if batch is None else [["x"], [1, 1]])


def around(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return ``call`` with the answer to its message after it."""
    return Acknowledgement(anyio.sleep, batched=False).around(call, call)


# ---- errors= as a function -----------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
async def test_errors_of_a_stream_are_handled(ordered: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """An item that fails has no result, and holds up none."""
    failed: list[tuple[tuple[int, str], str]] = []

    def handle(item: tuple[int, str], error: Exception) -> None:
        failed.append((item, error.__notes__[0]))

    async def half(number: int, _: str) -> int:
        await checkpoint()
        if number % 2:
            raise ValueError(number)
        return number // 2

    async with TaskExecutor(2).stream(
        half, range(5), ["a", "b", "c", "d", "e"], errors=handle, ordered=ordered, max_pending=0
    ) as results:
        assert sorted([result async for result in results]) == [0, 1, 2]
    assert [item for item, _ in sorted(failed)] == [(1, "b"), (3, "d")]
    assert failed[0][1].startswith("in item 1: ")


@pytest.mark.parametrize("plain", [False, True])
async def test_errors_in_a_call_without_end(plain: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """They leave nothing behind, and one that the handler raises ends the call."""
    alive: list[int] = []

    def refuse(number: int) -> None:
        raise LookupError(number)

    def handle(number: int, error: Exception) -> None:
        assert isinstance(error, LookupError)
        if number % 250 == 0:
            gc.collect()
            alive.append(len(gc.get_objects()))
        if number == 1_000:
            raise OSError("the log is full")

    with pytest.raises(OSError, match=r"^the log is full$") as info:
        await TaskExecutor(4).for_each(refuse if plain else fails, range(1_001), errors=handle)
    assert isinstance(info.value.__context__, LookupError)
    assert max(alive[1:]) - min(alive[1:]) < 500


# ---- what is refused -----------------------------------------------------------------------------


async def test_refusals() -> None:
    """What could not be kept, or would lose something, is refused before anything is taken."""
    executor, broker = TaskExecutor(), Broker(range(3))
    call: Any = executor.for_each
    with pytest.raises(ValueError, match=r"<Intake of Broker\.receive> are acknowl"):
        await call(print, broker.intake(), range(3))
    with pytest.raises(ValueError, match=r"^read_ahead=2 would take items"):
        await call(print, broker.intake(), read_ahead=2)
    with pytest.raises(TypeError, match=r"is an async function and would not be awaited"):
        await call(print, broker.intake(), errors=anyio.sleep)
    with pytest.raises(TypeError, match=r"cannot be called as int_\(item, error\)"):
        await call(print, broker.intake(), errors=int_)
    with pytest.raises(TypeError, match=r"^errors=<.*> would leave map\(\) without a result"):
        await executor.map(print, [1], errors=print)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # refused
    with pytest.raises(ValueError, match=r"^outcomes=True gives every error with its item"):
        executor.stream(print, [1], outcomes=True, errors=print)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # refused
    with pytest.raises(ValueError, match=r"^errors=<.*> is unknown"):
        await executor.gather(checkpoint, errors=print)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType] # refused
    assert len(broker.left) == 3


def int_(item: object) -> None:
    """Take one argument."""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"receive": 5}, r"^receive=5"),
        ({"receive": int_}, r"cannot be called as int_\(\)"),
        ({"ack": 5}, r"^ack=5"),
        ({"ack": lambda: None}, r"cannot be called as .*\(item\)"),
        ({"nack": 5}, r"^nack=5"),
        ({"nack": int_}, r"cannot be called as int_\(item, error\)"),
        ({"grace": 0}, r"^grace=0"),
    ],
)
def test_refused_intakes(options: dict[str, Any], reason: str) -> None:
    """What cannot be called so is refused when it is made."""
    made: Callable[..., Intake[int]] = Intake
    with pytest.raises((TypeError, ValueError), match=reason):
        made(**{"receive": Broker([]).receive, **options})


async def one() -> str:
    """Receive a single item."""
    return "abc"


async def none() -> None:
    """Receive what is not several."""


@pytest.mark.parametrize(
    ("receive", "many", "reason"),
    [
        (
            lambda: 1,
            False,
            r"^receive=<.*> returned 1, an int, which cannot be awaited\. Pass an as",
        ),
        (
            none,
            True,
            r"^receive=<.*> returned None, a NoneType, and many=True is for several\. Ret",
        ),
        (
            one,
            True,
            r"^receive=<.*> returned 'abc', a str, and many=True is for several\. Return a",
        ),
    ],
)
async def test_what_is_received_is_refused(receive: Any, many: Any, reason: str) -> None:
    """The error says what the function has to return."""
    with pytest.raises(TypeError, match=reason):
        await TaskExecutor().for_each(print, Intake[int](receive, many=many))
