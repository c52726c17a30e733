"""Retry: ``async for attempt in Retry(3): async with attempt: ...``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import Budget, Retry
from mtaio.resilience import GaveUp, OrderWarning, PartEvent, Retried, subscribe
from mtaio.testing import Victim, injections, run

if TYPE_CHECKING:
    from mtaio.resilience import Attempt
    from mtaio.testing._inject import Mode

EVENLY = Retry(3, wait_initial=1, wait_exp_base=1, jitter=0)


async def test_block_is_tried_again_until_it_succeeds() -> None:
    """The attempts have their numbers, and wait as those of a call; success ends the loop."""
    seen: list[tuple[int, float]] = []
    async for attempt in EVENLY:
        async with attempt:
            seen.append((attempt.number, anyio.current_time()))
            if attempt.number < 3:
                raise OSError
    assert seen == [(1, 0), (2, 1), (3, 2)]
    assert repr(attempt) == "<Attempt 3: succeeded>"
    attempts = aiter(EVENLY)
    assert aiter(attempts) is attempts


async def test_last_error_leaves_the_block() -> None:
    """With the note on why it was the last, and told as that of a call, without a function."""
    events: list[PartEvent] = []
    unsubscribe = subscribe(events.append)
    with pytest.raises(OSError, match="lost") as caught:
        await fail_in_a_block(Retry(2, wait_initial=0, name="files"), OSError("lost"))
    unsubscribe()
    assert caught.value.__notes__ == ["gave up after 2 attempts"]
    assert [(type(each), each.name, each.function) for each in events] == [
        (Retried, "files", None),
        (GaveUp, "files", None),
    ]
    with pytest.raises(KeyError):
        await fail_in_a_block(Retry(3, on=OSError), KeyError())


async def fail_in_a_block(policy: Retry, error: Exception) -> None:
    """Raise the error in each attempt."""
    async for attempt in policy:
        async with attempt:
            raise error


@pytest.mark.parametrize("until", [None, bool])
async def test_break_return_and_continue(until: Any) -> None:
    """They do what they do in any loop; ``continue`` in the block has succeeded."""
    policy = Retry(3, until=until)
    numbers: list[int] = []

    async def find() -> int:
        async for attempt in policy:
            async with attempt:
                return attempt.number
        raise AssertionError

    assert await find() == 1
    async for attempt in policy:
        async with attempt:
            numbers.append(attempt.number)
            break
    async for attempt in policy:
        async with attempt:
            numbers.append(attempt.number)
            attempt.result = True
            continue
    assert numbers == [1, 1]


@pytest.mark.parametrize("inside", [True, False])
async def test_result_is_judged(inside: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What was assigned, in the block or after it; the last one stays if none is right."""
    policy = Retry(3, until=lambda result: result > 2, wait_initial=0)
    last: Attempt | None = None
    async for attempt in policy:
        async with attempt:
            if inside:
                attempt.result = attempt.number
        if not inside:
            attempt.result = attempt.number
        last = attempt
    assert last is not None
    assert last.result == 3
    never = Retry(2, until=lambda _: False, wait_initial=0)
    results = [attempt async for attempt in filled(never)]
    assert [each.result for each in results] == ["a", "a"]


async def filled(policy: Retry) -> Any:
    """Yield the attempts, each with a result."""
    async for attempt in policy:
        async with attempt:
            attempt.result = "a"
        yield attempt


async def test_refusals_do_not_count() -> None:
    """They have the number of the attempt that was refused."""
    numbers: list[int] = []
    errors = iter([TimeoutError(), OSError(), TimeoutError()])
    async for attempt in Retry(2, throttled=TimeoutError, wait_initial=1):
        async with attempt:
            numbers.append(attempt.number)
            for error in errors:
                raise error
    assert numbers == [1, 1, 2, 2]


async def test_nested_loops() -> None:
    """Each has its own attempts; that they multiply is warned of."""
    tries: list[tuple[int, int]] = []
    inner_policy, outer_policy = Retry(2, wait_initial=0), Retry(2, wait_initial=0)

    async def nest() -> None:
        async for outer in outer_policy:
            async with outer:
                async for inner in inner_policy:
                    async with inner:
                        tries.append((outer.number, inner.number))
                        if (outer.number, inner.number) < (2, 2):
                            raise OSError

    with pytest.warns(OrderWarning, match="of a block runs inside an attempt of .* of a block"):
        await nest()
    assert tries == [(1, 1), (1, 2), (2, 1), (2, 2)]
    async for attempt in Retry(2, wait_initial=0):  # what is after them is inside of none
        async with attempt:
            if attempt.number == 1:
                raise OSError


# ---- misuse --------------------------------------------------------------------------------------


async def test_attempt_has_to_be_entered() -> None:
    """A loop that does not would go on for ever, or end after one turn, and neither is meant."""
    with pytest.raises(RuntimeError, match=r"^<Attempt 1: new> was not completed .*Write 'async f"):
        async for _ in EVENLY:
            pass


async def test_attempt_is_entered_once() -> None:
    """Another is another turn of the loop."""
    async for attempt in EVENLY:
        async with attempt:
            pass
        with pytest.raises(RuntimeError, match=r"^<Attempt 1: succeeded> has been entered before"):
            async with attempt:
                pass


async def test_attempt_has_to_have_a_result_to_be_judged() -> None:
    """Only where there is something that judges it."""

    async def find() -> None:
        async for attempt in Retry(until=bool):
            async with attempt:
                with pytest.raises(AttributeError, match=r"^the attempt has no result yet\. Ass"):
                    assert attempt.result

    with pytest.raises(RuntimeError, match=r"^<Attempt 1: succeeded> has no result, and the po"):
        await find()


# ---- cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["checkpoint", "step", "native"])
def test_cancelled_anywhere_it_ends_at_once(mode: Mode, backend: str) -> None:
    """There is no further attempt, and the budget has what was not used."""
    if mode == "native":
        backend = "asyncio"  # whose own Task.cancel() it is

    async def scenario(victim: Victim) -> None:
        budget = Budget(1, min_per_second=9)
        made: list[int] = []

        async def work() -> str:
            async for attempt in Retry(3, budget=budget, wait_initial=1):
                async with attempt:
                    made.append(attempt.number)
                    await anyio.sleep(0.1)
                    if attempt.number < 3:
                        raise OSError
            return "fine"

        result = None
        try:
            result = await victim(work)
        except OSError:  # it had failed as the cancellation came
            assert victim.fired
        retries = len(made) - 1
        if not victim.fired:
            assert (result, retries) == ("fine", 2)
        assert budget.statistics().available == 90 - max(retries, 0)

    for victim in injections(mode):
        run(scenario, victim, backend=backend)
