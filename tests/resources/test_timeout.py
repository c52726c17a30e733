"""Every rule of timeouts, quoted where it is tested."""

# ruff: noqa: PT012 - a limited block, with its body, is the statement that raises
# ruff: noqa: ASYNC100 - what a block without a checkpoint does is often the point

from __future__ import annotations

import asyncio
import builtins
import contextlib
import functools
import gc
import inspect
import math
import pickle
import re
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from mtaio import exceptions
from mtaio._internal import clock, deadlines
from mtaio.resources import TimeoutManager
from mtaio.statistics import TimeoutStatistics
from mtaio.testing import run, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

timeouts = TimeoutManager(30.0, name="tests")


async def clean_up(seconds: float) -> None:
    """Take so long that no cancellation gets through."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(seconds)


# --- "The timer starts on enter" --------------------------------------------------------------


async def test_timer_starts_on_enter() -> None:
    """The timer starts on enter, however long ago the scope was made."""
    scope = timeouts(2.0)
    assert scope.deadline == math.inf
    assert not scope.expired
    await anyio.sleep(5)
    with pytest.raises(exceptions.TimeoutError), scope:
        assert scope.deadline == 7.0
        await anyio.sleep_forever()
    assert anyio.current_time() == 7.0


# --- "Omitted: default; None: none; 0: at the first checkpoint; negative, NaN: ValueError" ----


async def test_omitted_is_the_default() -> None:
    """A block without seconds gets the default, 30 s unless the manager was told otherwise."""
    with pytest.raises(exceptions.TimeoutError), TimeoutManager()():
        await anyio.sleep_forever()
    assert anyio.current_time() == 30.0
    with pytest.raises(exceptions.TimeoutError), TimeoutManager(2)():
        await anyio.sleep_forever()
    assert anyio.current_time() == 32.0


@pytest.mark.parametrize("none", [None, math.inf])
async def test_none_is_no_limit(none: float | None) -> None:
    """None, as an argument or as the default, sets no limit."""
    with TimeoutManager(1.0)(none) as scope, TimeoutManager(none)() as inner:
        await anyio.sleep(10_000)
    assert scope.deadline == inner.deadline == math.inf
    assert not scope.expired


async def test_none_leaves_an_outer_limit_standing() -> None:
    """A block without a limit of its own is still interrupted by the one around it."""
    with pytest.raises(exceptions.TimeoutError) as info, timeouts(1.0), timeouts(None):
        await anyio.sleep_forever()
    assert info.value.timeout == 1.0


async def test_zero_cancels_at_the_first_checkpoint() -> None:
    """With 0 the body runs as far as its first checkpoint."""
    got_to = []
    with pytest.raises(exceptions.TimeoutError, match=r"^tests: timed out after 0 s$"), timeouts(0):
        got_to.append("start")
        await anyio.lowlevel.checkpoint()
        got_to.append("end")
    assert got_to == ["start"]
    assert anyio.current_time() == 0.0


@pytest.mark.parametrize("wrong", [-1, -0.001, -math.inf, math.nan])
def test_negative_and_nan_are_refused(wrong: float) -> None:
    """A negative or undefined duration is an error, wherever it is given."""
    refusal = rf"={re.escape(repr(wrong))} is (less than 0|not a number)\."
    for use in (timeouts, timeouts.limit):
        with pytest.raises(ValueError, match=rf"^timeout{refusal} Pass seconds >= 0, or None"):
            use(wrong)
    with pytest.raises(ValueError, match=rf"^default_timeout{refusal} Pass seconds >= 0, or None"):
        TimeoutManager(wrong)
    with pytest.raises(ValueError, match=rf"^grace{refusal} Pass the seconds that clean-up"):
        timeouts.shielded(grace=wrong)


@pytest.mark.parametrize("wrong", ["5", True, [1]])
def test_what_is_not_a_number_is_refused(wrong: Any) -> None:
    """A flag or a text passed for seconds is a mistake, not a duration."""
    with pytest.raises(TypeError, match=rf"^timeout={re.escape(repr(wrong))} is a \w+, not a num"):
        timeouts(wrong)


# --- "The error is mtaio.exceptions.TimeoutError …, raised only when *this* deadline fired" ---


async def test_error_carries_what_was_allowed() -> None:
    """The error is ours and the builtin's, and says how much, until when, and who."""
    await anyio.sleep(1)
    message = r"^tests: timed out after 2\.5 s$"
    with pytest.raises(builtins.TimeoutError, match=message) as info, timeouts(2.5) as scope:
        await anyio.sleep_forever()
    error = info.value
    assert isinstance(error, exceptions.TimeoutError)
    assert (error.timeout, error.deadline, error.name) == (2.5, 3.5, "tests")
    assert isinstance(error.__cause__, anyio.get_cancelled_exc_class())
    assert scope.expired
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (again.timeout, again.deadline, again.name) == (2.5, 3.5, "tests")


async def test_nameless_error() -> None:
    """Without a name the message starts with what happened."""
    message = r"^timed out after 1 s$"
    with pytest.raises(exceptions.TimeoutError, match=message) as info, TimeoutManager(1)():
        await anyio.sleep_forever()
    assert info.value.name is None


async def test_a_block_in_time_raises_nothing() -> None:
    """A block that ends in time does so in silence, though trio's scopes always answer True."""
    with timeouts(1.0) as scope:
        await anyio.sleep(0.5)
    assert not scope.expired
    await anyio.sleep(5)
    assert not scope.expired
    assert scope.deadline == 1.0


async def test_explicit_cancel_with_slow_clean_up_is_no_timeout() -> None:
    """An explicit scope.cancel() is not a timeout, even if the clean-up passes the deadline."""
    async with anyio.create_task_group() as group:
        with timeouts(2.0) as scope:

            async def stop() -> None:
                await anyio.sleep(1)
                scope.cancel()

            group.start_soon(stop)
            try:
                await anyio.sleep_forever()
            finally:
                await clean_up(3)
    assert anyio.current_time() == 4.0
    assert scope.cancelled
    assert not scope.expired
    scope.cancel()  # over: nothing happens


async def test_cancel_after_the_deadline_is_a_timeout() -> None:
    """What expired first has expired, although it is cancelled while it cleans up."""
    with pytest.raises(exceptions.TimeoutError), timeouts(1.0) as scope:
        try:
            await anyio.sleep_forever()
        finally:
            scope.cancel()
    assert scope.expired
    assert not scope.cancelled


async def test_cancel_past_an_unseen_deadline_is_a_timeout() -> None:
    """The deadline counts from its moment on, not from when the event loop notices."""
    with pytest.raises(exceptions.TimeoutError), timeouts(0) as scope:
        scope.cancel()
        await anyio.lowlevel.checkpoint()
    assert scope.expired


async def test_clocks_that_disagree() -> None:
    """What the event loop's clock has fired has expired, even if ours is a tick behind."""
    with clock.reading_from(lambda: -1e9):
        with pytest.raises(exceptions.TimeoutError), timeouts(1.0) as scope:
            try:
                await anyio.sleep_forever()
            finally:
                assert scope.expired
                scope.cancel()
        assert scope.expired
        with pytest.raises(LookupError), timeouts(1.0) as scope:
            try:
                await anyio.sleep_forever()
            finally:
                raise LookupError
        assert scope.expired


# --- "Nested deadlines: the effective one is the minimum; on a tie the outermost wins" --------


@pytest.mark.parametrize(("outer", "inner"), [(1.0, 2.0), (2.0, 1.0)])
async def test_nearest_deadline_counts(outer: float, inner: float) -> None:
    """The effective deadline is the minimum, and the error comes from the block it belongs to."""
    around, within = timeouts(outer), timeouts(inner)
    with pytest.raises(exceptions.TimeoutError) as info, around, within:
        assert timeouts.remaining() == 1.0
        await anyio.sleep_forever()
    assert anyio.current_time() == 1.0
    assert info.value.timeout == 1.0
    assert around.expired is (outer == 1.0)
    assert within.expired is (inner == 1.0)


@pytest.mark.parametrize("seconds", [0, 1.0])
@pytest.mark.parametrize("depth", [2, 5])
async def test_outermost_wins_a_tie(seconds: float, depth: int) -> None:
    """On a tie the outermost wins, and the inner blocks see cancellation."""
    seen: list[BaseException] = []

    async def nest(level: int) -> None:
        try:
            with timeouts(seconds):
                if level == depth:
                    await anyio.sleep_forever()
                await nest(level + 1)
        except BaseException as error:
            seen.append(error)
            raise

    with pytest.raises(exceptions.TimeoutError):
        await nest(1)
    *inner, outermost = seen
    assert len(inner) == depth - 1
    cancelled = anyio.get_cancelled_exc_class()
    assert all(isinstance(error, cancelled) for error in inner)
    assert isinstance(outermost, exceptions.TimeoutError)


async def test_a_tie_with_another_scope_of_anyio() -> None:
    """On a tie with a plain scope outside, the block sees cancellation and raises nothing."""
    with anyio.move_on_after(1.0) as outer:
        with timeouts(1.0):
            await anyio.sleep_forever()
    assert outer.cancelled_caught


# --- "A TimeoutError raised by the body passes through untouched" -----------------------------


@pytest.mark.parametrize("kind", [builtins.TimeoutError, exceptions.TimeoutError])
async def test_timeout_error_of_the_body_is_untouched(kind: type[Exception]) -> None:
    """A TimeoutError raised by the body passes as it is, before the deadline or at it."""
    own = kind("mine")
    with pytest.raises(kind) as info, timeouts(1.0) as scope:
        raise own
    assert info.value is own
    assert own.__context__ is None
    assert not scope.expired
    with pytest.raises(kind) as info, timeouts(0) as scope:
        raise own
    assert info.value is own
    assert scope.expired


async def test_error_in_clean_up_beats_the_timeout() -> None:
    """An error in clean-up beats the timeout, and keeps its context."""
    with pytest.raises(LookupError, match=r"^lost$") as info, timeouts(1.0) as scope:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("lost")
    assert isinstance(info.value.__context__, anyio.get_cancelled_exc_class())
    assert scope.expired
    assert timeouts.remaining() == math.inf


# --- "Finished past the deadline without meeting a checkpoint: result returned, expired True" -


async def test_result_past_the_deadline_is_kept() -> None:
    """A result already obtained is never discarded."""

    async def deaf() -> str:
        await clean_up(2)
        return "result"

    assert await timeouts.run(deaf, timeout=1.0) == "result"
    with timeouts(1.0) as scope:
        assert await deaf() == "result"
        assert scope.expired
    assert scope.expired
    assert anyio.current_time() == 4.0
    assert timeouts.remaining() == math.inf
    await anyio.sleep(1)  # nothing of the expired limit is left


# --- "Outer cancellation wins over our expired body's clean-up" -------------------------------


async def test_outer_cancellation_wins_over_an_expired_body() -> None:
    """A block cancelled from outside while cleaning up is cancelled, not timed out."""
    got_to = []
    with anyio.move_on_after(2.0) as outer:
        with timeouts(1.0) as scope:
            try:
                await anyio.sleep_forever()
            finally:
                await clean_up(3)
        got_to.append("after")
    assert outer.cancelled_caught
    assert scope.expired
    assert anyio.current_time() == 4.0
    assert got_to == []


async def test_cancelled_task_group_wins() -> None:
    """A task group that is cancelled takes an expired block in one of its tasks with it."""
    scopes = []

    async def work() -> None:
        with timeouts(1.0) as scope:
            scopes.append(scope)
            try:
                await anyio.sleep_forever()
            finally:
                await clean_up(2)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.sleep(2)
        group.cancel_scope.cancel()
    assert anyio.current_time() == 3.0
    assert scopes[0].expired


def test_native_cancellation_is_not_swallowed() -> None:
    """A Task.cancel() of asyncio goes through, also in the tick in which the deadline fires."""

    async def scenario(moment: float) -> None:
        async def work() -> None:
            with timeouts(1.0):
                await anyio.sleep_forever()

        task = asyncio.create_task(work())
        asyncio.get_running_loop().call_at(moment, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    for moment in (0.5, 1.0):
        run(scenario, moment, backend="asyncio")


def test_native_cancellation_during_clean_up() -> None:
    """A Task.cancel() that hits the clean-up of an expired body is not a timeout either."""

    async def scenario() -> None:
        async def work() -> None:
            with timeouts(1.0):
                try:
                    await anyio.sleep_forever()
                finally:
                    await clean_up(2)

        task = asyncio.create_task(work())
        asyncio.get_running_loop().call_at(2.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario, backend="asyncio")


# --- Exception groups -------------------------------------------------------------------------


async def test_group_of_cancellations_is_a_timeout() -> None:
    """A group that holds nothing but our cancellation is what the timeout caught."""
    with pytest.raises(exceptions.TimeoutError), timeouts(1.0):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.start_soon(anyio.sleep_forever)
    with pytest.raises(exceptions.TimeoutError) as info, timeouts(1.0):
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            msg = "two of them"
            raise BaseExceptionGroup(
                msg, [cancelled, BaseExceptionGroup("", [cancelled])]
            ) from None
    assert isinstance(info.value.__cause__, BaseExceptionGroup)


async def test_errors_beside_cancellations_beat_the_timeout() -> None:
    """Out of a group of both, the cancellations are taken, and the errors go on."""
    with pytest.raises(ExceptionGroup, match=r"^both") as info, timeouts(1.0) as scope:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            msg = "both"
            raise BaseExceptionGroup(msg, [cancelled, LookupError("lost")]) from None
    assert [type(error) for error in info.value.exceptions] == [LookupError]
    assert scope.expired


async def test_failing_clean_up_in_a_task_group_beats_the_timeout() -> None:
    """A child that fails while it is cancelled by our deadline is heard."""

    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("lost")

    with pytest.raises(ExceptionGroup) as info, timeouts(1.0):
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            group.start_soon(anyio.sleep_forever)
    assert [type(error) for error in info.value.exceptions] == [LookupError]


# --- "Deadline propagation" -------------------------------------------------------------------


async def test_remaining() -> None:
    """The nearest of all limits counts, whatever set it, down to 0 and never below."""
    assert timeouts.remaining() == math.inf
    with timeouts(8.0):
        await anyio.sleep(1)
        assert timeouts.remaining() == 7.0
        with anyio.move_on_after(5.0):
            assert TimeoutManager().remaining() == 5.0
            with timeouts(6.0), timeouts(None):
                assert timeouts.remaining() == 5.0
        with timeouts(2.0):
            await clean_up(3)
            assert timeouts.remaining() == 0.0
        with anyio.CancelScope() as scope:
            scope.cancel()
            assert timeouts.remaining() == 0.0
        assert timeouts.remaining() == 4.0
    assert timeouts.remaining() == math.inf


async def test_remaining_inside_a_shield() -> None:
    """Inside a shield the logical deadline is still readable."""
    with timeouts(5.0), anyio.CancelScope(shield=True):
        await anyio.sleep(1)
        assert anyio.current_effective_deadline() == math.inf
        assert timeouts.remaining() == 4.0
        assert deadlines.logical() == 5.0
        await anyio.sleep(7)
        assert timeouts.remaining() == 0.0


async def test_children_inherit() -> None:
    """Children of inner task groups inherit the deadline, inside a shield too."""
    seen = []

    async def child() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
            seen.append(timeouts.remaining())

    with timeouts(5.0):
        async with anyio.create_task_group() as group:
            group.start_soon(child)
        with timeouts(2.5):
            async with anyio.create_task_group() as group:
                group.start_soon(child)
    assert seen == [4.0, 1.5]


async def test_children_follow_a_moved_deadline() -> None:
    """A child that was started before the limit was moved sees where it is now."""
    seen = []

    async def child() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2)
            seen.append(timeouts.remaining())

    with timeouts(5.0) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await anyio.sleep(1)
            scope.reschedule(9.0)
    assert seen == [8.0]


async def test_a_task_that_outlives_the_block_is_free() -> None:
    """A task that inherited a limit whose block is over is not limited by it."""
    seen = []

    async with anyio.create_task_group() as group:
        with timeouts(1.0):

            async def child() -> None:
                await anyio.sleep(2)
                seen.append(timeouts.remaining())

            group.start_soon(child)
    assert seen == [math.inf]


async def test_remaining_in_a_worker_thread() -> None:
    """A worker thread knows how long the call it serves may take."""
    with timeouts(5.0):
        assert await to_thread.run_sync(timeouts.remaining) == 5.0
    assert await to_thread.run_sync(timeouts.remaining) == math.inf


def test_remaining_outside_an_event_loop() -> None:
    """Where nothing runs nothing is limited."""
    assert timeouts.remaining() == math.inf


async def test_deadline_of_others() -> None:
    """What the executor sets for an item is seen as the limit it is."""
    with timeouts(5.0):
        limit = deadlines.enter(deadlines.logical() - 2.0)
        assert timeouts.remaining() == 3.0
        limit.moment += 1.0
        assert timeouts.remaining() == 4.0
        deadlines.leave(limit)
        assert timeouts.remaining() == 5.0
        assert limit.moment == math.inf  # for a task that still has it


async def test_nothing_is_left_of_a_limit() -> None:
    """Left in whatever way, a block leaves the limit around it, and the last one none."""
    with timeouts(5.0), anyio.CancelScope(shield=True):
        with timeouts.shielded(grace=1.0):
            pass
        assert timeouts.remaining() == 5.0
        with pytest.raises(exceptions.TimeoutError), timeouts(1.0):
            await anyio.sleep_forever()
        assert timeouts.remaining() == 4.0
        with pytest.raises(LookupError), timeouts(1.0):
            raise LookupError
        assert timeouts.remaining() == 4.0
    assert deadlines.current.get() is None


# --- Reuse ------------------------------------------------------------------------------------


async def test_one_manager_for_many_tasks_at_once() -> None:
    """Any number of tasks use one manager at once, and nest it, without seeing each other."""
    outcomes: dict[int, tuple[float, float | None]] = {}

    async def work(number: int) -> None:
        try:
            with timeouts(number), timeouts():
                await anyio.sleep(10.5)
        except exceptions.TimeoutError as error:
            outcomes[number] = (anyio.current_time(), error.timeout)
        else:
            outcomes[number] = (anyio.current_time(), None)

    async with anyio.create_task_group() as group:
        for number in range(1, 21):
            group.start_soon(work, number)
    early = {number: (float(number), number) for number in range(1, 11)}
    assert outcomes == early | dict.fromkeys(range(11, 21), (10.5, None))


async def test_async_with_does_the_same() -> None:
    """``async with`` limits as ``with`` does."""
    async with timeouts(2.0) as scope:
        await anyio.sleep(1)
    assert not scope.expired
    with pytest.raises(exceptions.TimeoutError):
        async with timeouts(1.0) as scope:
            await anyio.sleep_forever()
    assert scope.expired
    assert anyio.current_time() == 2.0


# --- The scope --------------------------------------------------------------------------------


async def test_reschedule_moves_the_deadline() -> None:
    """Rescheduling starts the timer again, later or earlier; the error tells the last setting."""
    with pytest.raises(exceptions.TimeoutError) as info, timeouts(2.0) as scope:
        await anyio.sleep(1)
        scope.reschedule(5.0)
        assert (scope.deadline, scope.timeout, timeouts.remaining()) == (6.0, 5.0, 5.0)
        await anyio.sleep(4)
        scope.reschedule()
        assert scope.deadline == 10.0
        scope.reschedule(None)
        assert (scope.deadline, timeouts.remaining()) == (math.inf, math.inf)
        await anyio.sleep(95)
        scope.reschedule(0.5)
        await anyio.sleep_forever()
    assert anyio.current_time() == 100.5
    assert (info.value.timeout, info.value.deadline) == (0.5, 100.5)


async def test_reschedule_from_another_task() -> None:
    """A sibling that hears of progress keeps the block alive."""
    async with anyio.create_task_group() as group:
        with pytest.raises(exceptions.TimeoutError), timeouts(2.0) as scope:

            async def progress() -> None:
                for _ in range(3):
                    await anyio.sleep(1.5)
                    scope.reschedule()

            group.start_soon(progress)
            await anyio.sleep_forever()
    assert anyio.current_time() == 6.5


async def test_reschedule_to_zero() -> None:
    """Rescheduled to 0, the block is interrupted at its next checkpoint."""
    with pytest.raises(exceptions.TimeoutError), timeouts(None) as scope:
        scope.reschedule(0)
        await anyio.lowlevel.checkpoint()
        pytest.fail("went on")


async def test_reschedule_refused() -> None:
    """What has not started, is over, or was cancelled cannot be rescheduled."""
    scope = timeouts(1.0)
    with pytest.raises(RuntimeError, match=r"^cannot reschedule <.*, new>: its block has not been"):
        scope.reschedule(2.0)
    with scope:
        with pytest.raises(ValueError, match=r"^timeout=-1 is less than 0"):
            scope.reschedule(-1)
        assert scope.timeout == 1.0
    with pytest.raises(RuntimeError, match=r"^cannot reschedule <.*, left>: its block is over"):
        scope.reschedule(2.0)
    with (
        timeouts(0) as scope,
        pytest.raises(RuntimeError, match=r"^cannot reschedule <.*, active>: its deadline has"),
    ):
        scope.reschedule(2.0)
    with timeouts(1.0) as scope:
        scope.cancel()
        with pytest.raises(
            RuntimeError, match=r"^cannot reschedule <.*, active>: it was cancelled"
        ):
            scope.reschedule(2.0)
    assert scope.timeout == 1.0


async def test_a_scope_serves_one_block_once() -> None:
    """Entering a scope twice is a mistake, while it is active and after, and does no harm."""
    message = r"^<TimeoutScope of 5\.0 s, (active|left)> was entered before, and"
    scope = timeouts(5.0)
    with scope:
        with pytest.raises(RuntimeError, match=message):
            scope.__enter__()
        assert timeouts.remaining() == 5.0
    with pytest.raises(RuntimeError, match=message):
        await scope.__aenter__()


async def test_leaving_what_is_not_active_is_refused() -> None:
    """A scope is left once, after it was entered; cancelled only after it was entered."""
    scope = timeouts(5.0)
    message = r"^cannot leave <TimeoutScope of 5\.0 s, (new|left)>: its block is not active\.$"
    with pytest.raises(RuntimeError, match=message):
        scope.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match=r"^cannot cancel <.*, new>: its block has not been ent"):
        scope.cancel()
    with scope:
        pass
    with pytest.raises(RuntimeError, match=message):
        scope.__exit__(None, None, None)


def test_with_outside_an_event_loop() -> None:
    """Outside an event loop there is nothing that could be interrupted."""
    with (
        pytest.raises(RuntimeError, match=r"^a timeout can only limit code that runs in a task of"),
        timeouts(),
    ):
        pytest.fail("entered")


def test_with_in_a_callback() -> None:
    """In a callback of asyncio's loop there is no task that could be interrupted."""

    async def scenario() -> None:
        future: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

        def callback() -> None:
            try:
                timeouts().__enter__()
            except RuntimeError as error:
                future.set_result(error)

        asyncio.get_running_loop().call_soon(callback)
        assert "in a task of an event loop" in str(await future)

    run(scenario, backend="asyncio")


async def test_an_interrupted_block_leaves_no_garbage() -> None:
    """A timeout does not tie the frames of the body into a cycle."""

    class Mark:
        pass

    marks = []

    async def body() -> None:
        mark = Mark()
        marks.append(weakref.ref(mark))
        await anyio.sleep_forever()

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(exceptions.TimeoutError):
            await timeouts.run(body, timeout=1.0)
        await anyio.lowlevel.checkpoint()
        assert marks[0]() is None
    finally:
        gc.enable()


# --- Bounded clean-up -------------------------------------------------------------------------


async def test_shielded_clean_up_inside_a_cancelled_scope() -> None:
    """Clean-up in time is not disturbed, and the cancellation goes on after it."""
    done = []
    with anyio.CancelScope() as outer:
        outer.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            with timeouts.shielded(grace=5.0) as scope:
                assert timeouts.remaining() == 5.0
                await anyio.sleep(3)
                done.append(timeouts.remaining())
    assert outer.cancelled_caught
    assert done == [2.0]
    assert not scope.expired


async def test_shielded_clean_up_has_an_end() -> None:
    """Clean-up that takes longer is cut short, and nothing that follows it takes it for done."""
    got_to = []
    with pytest.raises(exceptions.TimeoutError) as info, timeouts(1.0):
        try:
            await anyio.sleep_forever()
        finally:
            with timeouts.shielded(grace=2.0) as scope:
                await anyio.sleep_forever()
            got_to.append("after the clean-up")
    assert anyio.current_time() == 3.0
    assert info.value.timeout == 1.0  # the outer limit wins
    assert scope.expired
    assert got_to == []


def test_shielded_clean_up_after_a_native_cancellation_has_an_end() -> None:
    """Task.cancel() leaves no scope behind, and goes on all the same when the time is up."""

    async def main() -> None:
        scopes = []

        async def victim(grace: float) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with timeouts.shielded(grace=grace) as scope:
                    scopes.append(scope)
                    await anyio.sleep(2)

        before = timeouts.statistics().timed_out
        for grace, ends, expired in ((1.0, 1.0, True), (3.0, 3.0, False)):
            task = asyncio.get_running_loop().create_task(victim(grace))
            await settle()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert anyio.current_time() == ends
            assert scopes.pop().expired is expired
        assert timeouts.statistics().timed_out == before

    run(main, backend="asyncio")


def test_native_cancellation_during_shielded_clean_up_cuts_it_off() -> None:
    """A native cancellation goes through every shield: the clean-up ends at its await."""

    async def main() -> None:
        cleaned = False
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                with timeouts(1.0):
                    try:
                        await anyio.sleep_forever()
                    finally:
                        with timeouts.shielded(grace=5.0):
                            await anyio.sleep(4)
                            cleaned = True
        assert anyio.current_time() == 3
        assert not cleaned

    run(main, backend="asyncio")


async def test_shielded_block_that_is_not_cancelled_times_out() -> None:
    """Without a cancellation outside, the end of the grace is an error of its own."""
    with (
        pytest.raises(exceptions.TimeoutError, match=r"^tests: shielded block timed out after 2\."),
        timeouts.shielded(grace=2.0),
    ):
        await anyio.sleep_forever()
    async with timeouts.shielded():
        assert timeouts.remaining() == 5.0


async def test_shielded_block_that_is_cancelled_meanwhile() -> None:
    """A cancellation that comes during the grace waits for its end."""
    with anyio.move_on_after(1.0) as outer:
        with timeouts.shielded(grace=3.0):
            await anyio.sleep(2)
        assert anyio.current_time() == 2.0
        await anyio.sleep_forever()
    assert outer.cancelled_caught
    assert anyio.current_time() == 2.0


async def test_error_in_a_shielded_block() -> None:
    """An error in clean-up goes on as it is."""
    with pytest.raises(LookupError), timeouts.shielded(grace=1.0):
        await anyio.sleep(0.5)
        raise LookupError
    assert timeouts.remaining() == math.inf


async def test_remaining_in_a_shielded_block_counts_the_grace() -> None:
    """The grace takes the place of the limits outside, passed or not; those inside still count."""
    with timeouts(1.0), timeouts.shielded(grace=4.0):
        assert timeouts.remaining() == 4.0
        with timeouts(2.0):
            assert timeouts.remaining() == 2.0
        with anyio.CancelScope(shield=True):
            assert timeouts.remaining() == 4.0


async def test_clean_up_that_ends_by_itself() -> None:
    """Clean-up has no limit if ``inf`` is written, at the beginning or on rescheduling."""
    none: Any = None
    with pytest.raises(TypeError, match=r"^grace=None is a NoneType, not a number\. Pass the seco"):
        timeouts.shielded(grace=none)
    with anyio.CancelScope() as outside:
        outside.cancel()
        with timeouts.shielded(grace=math.inf) as scope:
            await anyio.sleep(1000)
            assert timeouts.remaining() == math.inf
            scope.reschedule(3.0)
            await anyio.sleep(2)
            scope.reschedule()
            await anyio.sleep(2)
        with pytest.raises(anyio.get_cancelled_exc_class()):
            await anyio.lowlevel.checkpoint()
    assert anyio.current_time() == 1004
    with pytest.raises(RuntimeError, match=r"^cannot leave <TimeoutScope"):
        timeouts.shielded().__exit__(ValueError, ValueError(), None)


# --- run and limit ----------------------------------------------------------------------------


async def double(number: int) -> int:
    """Take a second."""
    await anyio.sleep(1)
    return 2 * number


class Later:
    """An awaitable that is not a coroutine."""

    def __await__(self) -> Generator[Any, Any, int]:
        return double(4).__await__()


async def test_run_limits_one_call() -> None:
    """A call, or an awaitable, gets the default or its own seconds."""
    assert await timeouts.run(double, 2) == 4
    assert await timeouts.run(double(3), timeout=1.5) == 6
    assert await timeouts.run(Later()) == 8
    assert await timeouts.run(lambda: double(5)) == 10
    for call in (double, functools.partial(double)):
        with pytest.raises(exceptions.TimeoutError, match=r"^tests: timed out after 0\.5 s$"):
            await timeouts.run(call, 2, timeout=0.5)
    with pytest.raises(exceptions.TimeoutError):
        await timeouts.run(Later(), timeout=0.5)
    assert anyio.current_time() == 5.5


async def test_run_refuses_and_closes() -> None:
    """A refused coroutine is closed, so that Python does not warn that it was never awaited."""
    untyped: Any = timeouts.run
    for arguments, options, message in (
        (
            (1,),
            {},
            r"^fn=<coroutine .*> is already a call, and takes no arguments, such as 1\. P",
        ),
        ((), {"timeout": -1}, r"^timeout=-1 is less than 0\. Pass seconds"),
        ((), {"timeout": "1"}, r"^timeout='1' is a str, not a number\. Pass seconds"),
    ):
        call = double(1)
        with pytest.raises((TypeError, ValueError), match=message):
            await untyped(call, *arguments, **options)
        assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED


async def test_run_refuses_what_cannot_be_awaited() -> None:
    """A sync function cannot be interrupted, and what is not a function at all cannot be called."""
    untyped: Any = timeouts.run
    with pytest.raises(TypeError, match=r"^<built-in function abs> returned 2, which cannot be aw"):
        await untyped(abs, -2)
    with pytest.raises(TypeError, match=r"^fn=5 can be neither called nor awaited\. Pass an a"):
        await untyped(5)
    assert await timeouts.run(to_thread.run_sync, abs, -2) == 2


async def test_run_in_a_thread_is_abandoned_at_the_deadline() -> None:
    """The way out that the refusal of a sync function names works."""
    assert await timeouts.run(to_thread.run_sync, timeouts.remaining, timeout=7.0) == 7.0


async def test_limit_decorates_functions_and_methods() -> None:
    """Decorated functions keep name, signature and result, and each call has a limit of its own."""

    @timeouts.limit
    async def with_default(number: int, *, extra: int = 0) -> float:
        """Say something."""
        await anyio.sleep(number)
        return timeouts.remaining() + extra

    class Service:
        @timeouts.limit(2.0)
        async def method(self, seconds: float) -> Service:
            await anyio.sleep(seconds)
            return self

        @timeouts.limit(timeout=None)
        async def free(self) -> float:
            return timeouts.remaining()

        @timeouts.limit()
        @staticmethod
        async def static() -> float:
            return timeouts.remaining()

    assert await with_default(1, extra=1) == 30.0
    assert await with_default(2) == 28.0
    assert with_default.__name__ == "with_default"
    assert with_default.__doc__ == "Say something."
    assert list(inspect.signature(with_default).parameters) == ["number", "extra"]
    service = Service()
    assert await service.method(1) is service
    assert await service.free() == math.inf
    assert await Service.static() == 30.0
    start = anyio.current_time()
    with pytest.raises(exceptions.TimeoutError, match=r"^tests: timed out after 2\.0 s$"):
        await service.method(3)
    assert anyio.current_time() == start + 2.0


def test_limit_refuses_sync_functions() -> None:
    """A function that cannot be interrupted is refused when it is decorated."""
    untyped: Any = timeouts.limit
    message = r"^@TimeoutManager\.limit cannot decorate <function .*sync.*>: it is not an async fun"

    def sync() -> None:
        pytest.fail("called")

    with pytest.raises(TypeError, match=message):
        untyped(sync)
    with pytest.raises(TypeError, match=message):
        untyped(5.0)(sync)
    with pytest.raises(
        TypeError, match=r"^@TimeoutManager\.limit cannot decorate '5': it is of type 'str"
    ):
        untyped("5")


# --- The manager itself -----------------------------------------------------------------------


async def test_statistics() -> None:
    """The manager counts what it limited and what ran out."""
    manager = TimeoutManager(2.0, name="counted")
    manager()  # made, not entered
    with manager():
        pass
    for seconds in (0.5, 1.0):
        with pytest.raises(exceptions.TimeoutError), manager(seconds):
            await anyio.sleep_forever()
    with anyio.move_on_after(0.5), manager.shielded(grace=9):
        pass
    statistics = manager.statistics()
    assert statistics == TimeoutStatistics(default_timeout=2.0, entered=4, timed_out=2)


def test_manager_says_what_it_is() -> None:
    """Name and default can be read, and stand in the representation."""
    assert (timeouts.name, timeouts.default_timeout) == ("tests", 30.0)
    assert repr(timeouts) == "<TimeoutManager 'tests' of 30.0 s>"
    assert repr(TimeoutManager(None)) == "<TimeoutManager of None s>"


async def test_run_leaves_a_coroutine_to_the_task_that_awaits_it() -> None:
    """A coroutine that is being awaited already is refused, and its owner gets the result."""
    results: list[str] = []

    async def work() -> str:
        await anyio.sleep(1)
        return "done"

    async def own() -> None:
        results.append(await coroutine)

    coroutine = work()
    async with anyio.create_task_group() as group:
        group.start_soon(own)
        await settle()
        with pytest.raises(RuntimeError, match=r"^coroutine is being awaited already$"):
            await TimeoutManager(5.0).run(coroutine)
    assert results == ["done"]


async def test_each_item_of_a_generator_within_a_time() -> None:
    """With the block around the wait, and the ``yield`` outside of it, no consumer is cancelled."""
    timeouts = TimeoutManager(0.5)
    pauses = [0.25, 0.25, 0.75]

    async def source() -> AsyncGenerator[float]:
        for pause in pauses:
            await anyio.sleep(pause)
            yield pause

    async def answers() -> AsyncGenerator[float]:
        items = source()
        while True:
            with timeouts():
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item

    got: list[float] = []
    with pytest.raises(exceptions.TimeoutError):
        async for item in answers():
            got.append(item)
            await anyio.sleep(1)
    assert got == [0.25, 0.25]
    del pauses[2]
    assert [item async for item in answers()] == [0.25, 0.25]
