"""Breaker: when it opens, whom it lets through, and what is no outcome."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.exceptions import BreakerOpenError, ConcurrencyLimitError, LimitTimeoutError
from mtaio.resilience import (
    Breaker,
    BreakerChange,
    BreakerState,
    PartEvent,
    Refused,
    subscribe,
)
from mtaio.testing import run
from tests.closed_loops import leave_waiting
from tests.resilience.calls import Sleeper, fail, succeed, through

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


async def outcomes(call: Callable[..., Awaitable[Any]], pattern: str, key: object = None) -> str:
    """Make a call for each letter, a success or a failure, and return what became of it."""
    became = ""
    for letter in pattern:
        try:
            await call(succeed if letter == "+" else fail, key)
        except BreakerOpenError:
            became += "x"
        except ConnectionError:
            became += "-"
        else:
            became += "+"
    return became


@pytest.mark.parametrize(
    ("ratio", "last", "min_calls", "pattern", "became"),
    [
        (0.5, 4, None, "--++", "--xx"),  # half of them is enough
        (0.5, 4, 4, "--++-+", "--++-x"),  # no ratio before min_calls
        (0.5, 4, 4, "----+", "----x"),
        (1, 3, 3, "-+---+", "-+---x"),  # the success is forgotten
        (0.1, 10, 10, "-+++++++++-+", "-+++++++++-x"),  # a tenth, not rounded; found by a failure
        (0.4, 5, 5, "+++++-+++-+", "+++++-+++-x"),
        (0.4, 5, 5, "+++++-++++-+", "+++++-++++-+"),  # 1 of 5, twice
        (0.5, 1, None, "+-+", "+-x"),
        (1, 2, 1, "-+", "-x"),
    ],
)
async def test_opens_at_the_ratio(
    ratio: float, last: int, min_calls: int | None, pattern: str, became: str
) -> None:
    """It opens with the failure that makes the ratio of the last calls reach the limit."""
    breaker = Breaker(ratio, last=last, min_calls=min_calls)
    assert await outcomes(through(breaker), pattern) == became
    assert breaker.state is (OPEN if "x" in became else CLOSED)


async def test_closes_after_a_probe() -> None:
    """After its time one call gets through; its success closes the breaker, which forgets all."""
    breaker = Breaker(0.5, last=2, open_for=10)
    call = through(breaker)
    assert await outcomes(call, "+-+") == "+-x"
    await anyio.sleep(9.5)
    with pytest.raises(BreakerOpenError) as refused:
        await call(succeed)
    assert refused.value.retry_after == 0.5
    await anyio.sleep(0.5)
    assert breaker.state is OPEN  # until a call comes
    assert await outcomes(call, "++") == "++"
    assert breaker.state is CLOSED


async def test_opens_again_after_a_failed_probe() -> None:
    """The failure of the probe opens it for the whole time again."""
    breaker = Breaker(0.5, last=2, open_for=10)
    call = through(breaker)
    await outcomes(call, "--")
    await anyio.sleep(10)
    assert await outcomes(call, "-+") == "-x"
    await anyio.sleep(9.9)
    assert await outcomes(call, "+") == "x"
    await anyio.sleep(0.1)
    assert await outcomes(call, "+") == "+"
    assert breaker.statistics().opened == 2


@pytest.mark.parametrize(
    ("pattern", "became", "state"),
    [
        ("-++-+", "-++-x", OPEN),  # half of four
        ("--", "--", OPEN),  # already half of four: the others are not needed
        ("+-+", "+-+", HALF_OPEN),
        ("-+++", "-+++", CLOSED),
        ("+++-", "+++-", CLOSED),  # the last of them may be the failure
    ],
)
async def test_several_probes_decide_together(
    pattern: str, became: str, state: BreakerState
) -> None:
    """Half-open it asks for the same ratio, of all the calls that probe."""
    breaker = Breaker(0.5, last=2, open_for=1, half_open=4)  # more than are remembered
    call = through(breaker)
    await outcomes(call, "--")
    await anyio.sleep(1)
    assert await outcomes(call, pattern) == became
    assert breaker.state is state


@pytest.mark.parametrize("half_open", [1, 3])
async def test_half_open_among_a_thousand(half_open: int) -> None:
    """Of a thousand callers at once, exactly as many get through as are to probe."""
    breaker = Breaker(0.5, last=2, open_for=1, half_open=half_open)
    call = through(breaker)
    await outcomes(call, "--")
    await anyio.sleep(1)
    inside = 0
    refused = []

    async def probe() -> None:
        nonlocal inside
        inside += 1
        await anyio.sleep(5)

    async def caller() -> None:
        try:
            await call(probe)
        except BreakerOpenError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(caller)
        await anyio.sleep(4)
        assert (inside, len(refused)) == (half_open, 1000 - half_open)
        assert breaker.state is HALF_OPEN
        assert breaker.statistics().half_open == 1
    assert breaker.state is CLOSED
    assert all(error.retry_after == 0 for error in refused)
    assert str(refused[0]).endswith(f"It waits for its probe calls ({half_open}) to end.")


async def test_cancelled_probe_returns_its_place() -> None:
    """A probe that is cancelled says nothing, and the next call takes its place."""
    breaker = Breaker(0.5, last=2, open_for=1)
    call = through(breaker)
    await outcomes(call, "--")
    await anyio.sleep(1)
    with anyio.move_on_after(1):
        await call(anyio.sleep_forever)
    assert breaker.state is HALF_OPEN
    assert breaker.statistics().undecided == 1
    assert await outcomes(call, "+") == "+"
    assert breaker.state is CLOSED


async def clean_up_fails() -> None:
    """Make an error of a cancellation."""
    try:
        await anyio.sleep_forever()
    finally:
        raise ConnectionError("lost")


@pytest.mark.parametrize("fn", [anyio.sleep_forever, clean_up_fails])
async def test_cancellation_is_no_outcome(fn: Callable[[], Awaitable[Any]]) -> None:
    """However many calls are cancelled, and whatever they make of it, it stays closed."""
    breaker = Breaker(0.5, last=2)
    call = through(breaker)
    for _ in range(5):
        with anyio.move_on_after(1) as scope:
            try:
                await call(fn)
            except ConnectionError:
                await checkpoint()
        assert scope.cancelled_caught
    assert breaker.state is CLOSED
    now = breaker.statistics()
    assert (now.calls, now.failed, now.undecided) == (5, 0, 5)


@pytest.mark.parametrize(
    "error", [ConcurrencyLimitError("full"), LimitTimeoutError("late"), BreakerOpenError("another")]
)
async def test_refusal_inside_is_no_outcome(error: Exception) -> None:
    """What a limiter inside refuses says nothing about the service, and gives its place back."""
    breaker = Breaker(0.5, last=2, open_for=1)
    call = through(breaker)

    async def refuse() -> None:
        raise error

    for _ in range(5):
        with pytest.raises(type(error), match=r"^(full|late|another)$"):
            await call(refuse)
    assert breaker.state is CLOSED
    await outcomes(call, "--")
    await anyio.sleep(1)
    with pytest.raises(type(error), match=r"^(full|late|another)$"):
        await call(refuse)
    assert await outcomes(call, "++") == "++"


async def test_on_that_fails_keeps_no_place() -> None:
    """A probe whose outcome cannot be told, since ``on`` itself fails, gives its place back."""

    def on(error: Exception) -> bool:
        return bool(error.args[0].code)

    breaker = Breaker(0.5, last=2, open_for=1, on=on)
    call = through(breaker)

    async def fail_with(answer: object) -> None:
        raise ValueError(answer)

    with pytest.raises(ValueError, match="namespace"):
        await call(partial(fail_with, SimpleNamespace(code=500)))
    assert breaker.state is OPEN
    await anyio.sleep(1)
    for _ in range(2):
        with pytest.raises(AttributeError):
            await call(partial(fail_with, "no code"))
        assert breaker.state is HALF_OPEN
    now = breaker.statistics()
    assert (now.calls, now.failed, now.undecided, now.rejected) == (3, 1, 2, 0)
    assert await outcomes(call, "+") == "+"
    assert breaker.state is CLOSED


@pytest.mark.parametrize(
    "on",
    [
        ConnectionError,
        (ValueError, ConnectionError),
        lambda error: isinstance(error, ConnectionError),
    ],
    ids=["class", "tuple", "function"],
)
async def test_other_errors_are_answers(on: Any) -> None:
    """An error that is no failure counts as a success: the service has answered."""
    breaker = Breaker(0.5, last=2, open_for=1, on=on)
    call = through(breaker)

    async def not_found() -> None:
        raise LookupError("404")

    await outcomes(call, "--")
    await anyio.sleep(1)
    with pytest.raises(LookupError):
        await call(not_found)
    assert breaker.state is CLOSED


async def test_outcome_counts_in_its_own_period() -> None:
    """What was let through before it opened says nothing when it ends, however it ends."""
    breaker = Breaker(0.5, last=2, open_for=1)
    call = through(breaker)
    ending = anyio.Event()

    async def late(fn: Callable[[], Awaitable[Any]]) -> None:
        await ending.wait()
        await fn()

    async def old(fn: Callable[[], Awaitable[Any]]) -> None:
        with suppress(ConnectionError):
            await call(partial(late, fn))

    async with anyio.create_task_group() as group:
        for fn in (fail, succeed):
            group.start_soon(old, fn)
        await anyio.sleep(0.5)
        await outcomes(call, "--")
        await anyio.sleep(1)
        async with anyio.create_task_group() as probing:
            probing.start_soon(call, partial(anyio.sleep, 1))
            await anyio.sleep(0.5)
            ending.set()
            await anyio.sleep(0.1)
            assert breaker.state is HALF_OPEN  # neither of the two
            assert await outcomes(call, "+") == "x"
    assert breaker.state is CLOSED


async def test_by_hand() -> None:
    """open() lets nothing through until reset(), which forgets what was."""
    breaker = Breaker(0.5, last=2, open_for=1, name="api")
    call = through(breaker)
    breaker.force_open()
    await anyio.sleep(1e4)
    with pytest.raises(BreakerOpenError) as refused:
        await call(succeed)
    assert str(refused.value) == (
        "<Breaker 'api': open> refuses the call: force_open() was called. reset() closes it."
    )
    assert (refused.value.retry_after, refused.value.name) == (math.inf, "api")
    breaker.reset()
    assert breaker.state is CLOSED
    await outcomes(call, "+-")
    breaker.reset()
    assert await outcomes(call, "+-") == "+-"


async def test_message() -> None:
    """The error says what failed, and when the next call is let through."""
    breaker = Breaker(0.5, last=4, open_for=30)
    call = through(breaker)
    await outcomes(call, "+-")
    with pytest.raises(BreakerOpenError) as refused:
        await call(succeed)
    assert str(refused.value) == (
        "<Breaker: open> refuses the call: 1 of the last 2 calls failed, the latest with "
        "ConnectionError. The next call is let through in 30 s."
    )
    await anyio.sleep(30)
    await outcomes(call, "-")
    with pytest.raises(BreakerOpenError, match=r"call: 1 of 1 probe calls failed"):
        await call(succeed)


async def test_a_state_for_each_key() -> None:
    """With max_keys, one key's failures concern that key alone."""
    breaker = Breaker(0.5, last=2, min_calls=2, max_keys=2, name="hosts")
    call = through(breaker)
    assert await outcomes(call, "--+", "a") == "--x"
    assert await outcomes(call, "+++", "b") == "+++"
    assert (breaker.state_of("a"), breaker.state_of("b")) == (OPEN, CLOSED)
    assert breaker.state_of("never seen") is CLOSED
    assert breaker.state is CLOSED
    with pytest.raises(BreakerOpenError, match="refuses the call for key='a': 2 of the last 2"):
        await call(succeed, "a")
    assert repr(breaker) == "<Breaker 'hosts': 2 keys, 1 open, 0 half-open>"
    assert str(breaker) == "Breaker(0.5, last=2, open_for=30.0, max_keys=2)"
    breaker.reset("a")
    breaker.force_open("b")
    assert (breaker.state_of("a"), breaker.state_of("b")) == (CLOSED, OPEN)
    for by_hand in breaker.force_open, breaker.reset:
        with pytest.raises(
            ValueError, match=r"^<Breaker 'hosts': .* has a state for each key\. Pass"
        ):
            by_hand()


async def test_forgets_the_closed_key_used_longest_ago() -> None:
    """The table of keys is bounded; what refuses or probes is kept as long as others can go."""
    breaker = Breaker(0.5, last=2, min_calls=2, open_for=1, max_keys=2)
    call = through(breaker)
    assert await outcomes(call, "--", "a") == "--"
    await outcomes(call, "+", "b")
    await outcomes(call, "+", "c")
    assert breaker.state_of("a") is OPEN
    assert breaker.statistics().open == 1
    await anyio.sleep(1)
    async with anyio.create_task_group() as group:
        group.start_soon(call, partial(anyio.sleep, 1), "a")
        await anyio.sleep(0.5)
        assert breaker.statistics().half_open == 1
        await outcomes(call, "+", "d")
        await outcomes(call, "+", "e")
        now = breaker.statistics()
        assert (now.open, now.half_open, now.keys, now.max_keys) == (0, 1, 2, 2)
    assert breaker.state_of("a") is CLOSED


async def test_forgets_an_open_key_if_all_are_open() -> None:
    """That one begins again, closed, and a call that began before it was forgotten is too late."""
    breaker = Breaker(0.5, last=2, min_calls=2, open_for=1, max_keys=2)
    call = through(breaker)
    await outcomes(call, "--", "a")
    await outcomes(call, "--", "b")
    await anyio.sleep(1)
    async with anyio.create_task_group() as group:
        group.start_soon(call, partial(anyio.sleep, 1), "a")
        await anyio.sleep(0.5)
        await outcomes(call, "+", "c")
        now = breaker.statistics()
        assert (now.open + now.half_open, now.keys) == (1, 2)
    assert await outcomes(call, "+", "c") == "+"
    assert breaker.statistics().keys == 2


async def test_tells_of_each_change(caplog: pytest.LogCaptureFixture) -> None:
    """on_change is called once for each change, and what it raises is logged, as changes are."""
    caplog.set_level("INFO", "mtaio.resilience")
    changes: list[BreakerChange] = []

    def note(change: BreakerChange) -> None:
        changes.append(change)
        assert breaker.state is change.state
        if change.state is HALF_OPEN:
            raise ValueError

    breaker = Breaker(0.5, last=2, open_for=1, on_change=note, name="api")
    call = through(breaker)
    await outcomes(call, "--")
    await anyio.sleep(1)
    await outcomes(call, "+")
    breaker.reset()  # it is closed
    breaker.force_open()
    breaker.force_open()
    assert [(change.before, change.state) for change in changes] == [
        (CLOSED, OPEN),
        (OPEN, HALF_OPEN),
        (HALF_OPEN, CLOSED),
        (CLOSED, OPEN),
    ]
    assert [type(change.error) for change in changes] == [
        ConnectionError,
        type(None),
        type(None),
        type(None),
    ]
    assert [(change.name, change.key) for change in changes] == [("api", None)] * 4
    lines = [(each.levelname, each.getMessage().partition(" for ")[0]) for each in caplog.records]
    assert lines == [
        (
            "WARNING",
            "breaker 'api' is open: 1 of the last 1 calls failed, the latest with ConnectionError",
        ),
        ("INFO", "breaker 'api' is half-open"),
        ("ERROR", "test_tells_of_each_change.<locals>.note failed"),
        ("INFO", "breaker 'api' is closed"),
        ("WARNING", "breaker 'api' is open: force_open() was called"),
    ]


async def test_statistics() -> None:
    """The numbers tell what was let through, failed, undecided and refused."""
    breaker = Breaker(0.5, last=2, name="api")
    call = through(breaker)
    await outcomes(call, "+--++")
    now = breaker.statistics()
    assert (now.calls, now.failed, now.undecided, now.rejected) == (2, 1, 0, 3)
    assert (now.open, now.half_open, now.opened, now.keys, now.max_keys) == (1, 0, 1, 1, None)
    assert breaker.name == "api"
    assert str(breaker) == "Breaker(0.5, last=2, open_for=30.0)"


async def test_refusals_let_others_run() -> None:
    """Whoever asks again and again cannot keep the event loop to itself."""
    breaker = Breaker()
    breaker.force_open()
    call = through(breaker)
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        assert await outcomes(call, "+" * 640) == "x" * 640
        group.cancel_scope.cancel()
    assert ran >= 9


def test_in_one_loop_after_another(backend: str) -> None:
    """A breaker keeps its state from one event loop to the next."""
    breaker = Breaker(0.5, last=2)
    call = through(breaker)
    run(outcomes, call, "+-", backend=backend)
    assert run(outcomes, call, "+", backend=backend) == "x"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"failure_ratio": 0}, ValueError, "^failure_ratio=0 is not a ratio"),
        ({"failure_ratio": 50}, ValueError, "^failure_ratio=50 is not a ratio"),
        ({"failure_ratio": "half"}, TypeError, "^failure_ratio='half' is a str"),
        ({"last": 0}, ValueError, "^last=0 is less than 1"),
        ({"min_calls": 21}, ValueError, "^min_calls=21 would never be reached"),
        ({"min_calls": 0}, ValueError, "^min_calls=0 is less than 1"),
        ({"open_for": -1}, ValueError, "^open_for=-1 is less than 0"),
        ({"half_open": 0}, ValueError, "^half_open=0 is less than 1"),
        ({"on": anyio.sleep}, TypeError, "^on=.* is an async function, and its coroutine"),
        ({"on": BaseException}, TypeError, "^on=.* which is not a subclass of Exception"),
        ({"max_keys": 0}, ValueError, "^max_keys=0 is less than 1"),
        ({"on_change": 1}, TypeError, "^on_change=1 is an int, which is not callable"),
        ({"on_change": succeed}, TypeError, "^on_change=.* is an async function"),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    """A value that makes no sense is named, with the way out."""
    with pytest.raises(kind, match=message):
        Breaker(**arguments)


async def test_groups_are_failures_if_all_in_them_are() -> None:
    """As task groups raise them; a group of refusals alone is no outcome."""
    lost, wrong = ConnectionError(), ValueError()
    refused = ConcurrencyLimitError("no slot")
    breaker = Breaker(1, last=2, min_calls=2, on=ConnectionError)
    call = through(breaker)
    for group, failed, undecided in (
        (ExceptionGroup("", [lost, lost]), 1, 0),
        (ExceptionGroup("", [refused, ExceptionGroup("", [refused])]), 1, 1),
        (ExceptionGroup("", [lost, wrong]), 1, 1),
        (ExceptionGroup("", [lost, ExceptionGroup("", [lost])]), 2, 1),
        (ExceptionGroup("", [lost]), 3, 1),
    ):

        async def fail_together(group: ExceptionGroup[Exception] = group) -> None:
            raise group

        with pytest.raises(ExceptionGroup):
            await call(fail_together)
        statistics = breaker.statistics()
        assert (statistics.failed, statistics.undecided) == (failed, undecided)
    assert breaker.state is OPEN


@pytest.mark.parametrize(
    ("seconds", "became"),
    [
        ([0.1, 2, 2, 0.1], ". . . x"),  # half of the three that ended, and of four
        ([2, 0.1, 0.1, 2, 0.1], ". . . . x"),
        ([1.9, 1.9, 1.9, 1.9], ". . . ."),
        ([-2, 0.1, -2, 0.1], "- . - x"),  # it failed, and late
        ([2, 2, -0.1, 0.1], ". . - ."),  # found by a slow call alone
        ([0.1, 0.1, 0.1, 2, 0.1, 0.1, 0.1, 0.1, 2, 0.1], ". . . . . . . . . ."),
        ([0.1, 0.1, 0.1, 0.1, 2, 2, 0.1], ". . . . . . x"),  # a row of good ones changes nothing
    ],
)
async def test_slow_calls_open_it(seconds: list[float], became: str) -> None:
    """With slow= it opens when the share of calls that took so long reaches slow_ratio."""
    breaker = Breaker(1, last=4, min_calls=3, slow=2, slow_ratio=0.5)
    call = through(breaker)
    results: list[str] = []
    refusals: list[str] = []
    await anyio.sleep(0.1)  # so that a difference of moments is not exact
    for each in seconds:
        try:
            await call(Sleeper(each))
        except BreakerOpenError as error:
            results.append("x")
            refusals.append(str(error))
        except ConnectionError:
            results.append("-")
        else:
            results.append(".")
    assert " ".join(results) == became
    assert all("calls took 2 s or longer, the latest " in text for text in refusals)
    assert breaker.statistics().slow == sum(abs(each) >= 2 for each in seconds)


async def test_prints_its_rules() -> None:
    """Those that are not given are not shown."""
    breaker = Breaker(0.2, last=2, min_calls=2, slow=1.5, slow_ratio=0.3, consecutive=2)
    shown = "Breaker(0.2, last=2, open_for=30.0, consecutive=2, slow=1.5, slow_ratio=0.3)"
    assert str(breaker) == shown
    call = through(breaker)
    assert await outcomes(call, "+++") == "+++"
    assert breaker.statistics().recent_calls == 2
    await outcomes(call, "+-")
    assert breaker.state is OPEN


async def test_slow_probe_opens_it_again() -> None:
    """Half-open, an answer that takes as long as before is no better than a failure."""
    changes: list[BreakerChange] = []
    breaker = Breaker(last=2, min_calls=2, slow=1, open_for=5, on_change=changes.append)
    call = through(breaker)
    await call(Sleeper(1))
    await call(Sleeper(1.5))
    assert breaker.state is OPEN
    await anyio.sleep(5)
    await call(Sleeper(3))
    assert breaker.state is OPEN
    await anyio.sleep(5)
    await call(Sleeper(0.5))
    assert breaker.state is CLOSED
    opened = [(change.error, change.reason) for change in changes if change.state is OPEN]
    assert opened == [
        (None, "2 of the last 2 calls took 1 s or longer, the latest after 1.5 s"),
        (None, "1 of 1 probe calls failed or were slow, the latest after 3 s"),
    ]


@pytest.mark.parametrize(
    ("pattern", "became"),
    [("---+", "---x"), ("--+--+---+", "--+--+---x"), ("+--" * 5, "+--" * 5)],
)
async def test_failures_in_a_row_open_it(pattern: str, became: str) -> None:
    """With consecutive= so many failures in a row open it, whatever the ratio of the others is."""
    breaker = Breaker(1, last=20, consecutive=3)
    assert await outcomes(through(breaker), pattern) == became
    if breaker.state is OPEN:
        with pytest.raises(BreakerOpenError, match="call: 3 calls in a row failed, the latest w"):
            await through(breaker)(succeed)


@pytest.mark.parametrize(
    ("ratio", "pattern", "state"),
    [
        (0, "++-", OPEN),  # all of them must succeed
        (0, "+++", CLOSED),
        (0.5, "-++", CLOSED),
        (0.5, "--", OPEN),
        (None, "--+", CLOSED),  # that of failure_ratio
    ],
)
async def test_half_open_has_a_ratio_of_its_own(
    ratio: float | None, pattern: str, state: BreakerState
) -> None:
    """half_open_ratio is the share of the probes that must fail for it to open again."""
    breaker = Breaker(1, last=1, open_for=1, half_open=3, half_open_ratio=ratio)
    call = through(breaker)
    await outcomes(call, "-")
    await anyio.sleep(1)
    await outcomes(call, pattern)
    assert breaker.state is state


async def test_results_may_be_failures() -> None:
    """With failed= a result counts as a failure, and is returned all the same."""
    breaker = Breaker(0.5, last=2, open_for=1, failed=lambda status: status >= 500)
    call = through(breaker)

    async def answer(status: Any) -> Any:
        return status

    assert [await call(partial(answer, status)) for status in (404, 503)] == [404, 503]
    assert breaker.state is OPEN
    with pytest.raises(BreakerOpenError, match=r"1 of the last 2 calls failed, the latest by its"):
        await call(partial(answer, 200))
    await anyio.sleep(1)
    with pytest.raises(TypeError):
        await call(partial(answer, "no number"))  # failed itself fails: nobody knows
    assert (breaker.state, breaker.statistics().undecided) == (HALF_OPEN, 1)
    for _ in range(3):
        assert await call(partial(answer, 200)) == 200
    assert (breaker.state, breaker.statistics().failed) == (CLOSED, 1)
    await call(partial(answer, 500))
    assert breaker.state is OPEN


async def in_block(breaker: Breaker, how: str, key: str | None = None) -> None:
    """Enter a block that ends in one way or another."""
    async with breaker if key is None else breaker.block(key) as block:
        assert not block.failed
        if how == "raised":
            raise ConnectionError
        if how == "marked and another error":
            block.mark_failed()
            raise LookupError
        if how == "marked":
            block.mark_failed()
            assert block.failed
        if how == "marked and cancelled":
            block.mark_failed()
            await anyio.sleep_forever()
        await anyio.sleep(1)


@pytest.mark.parametrize("key", [None, "host"])
async def test_block(key: str | None) -> None:
    """The end of a block is its outcome: an exception, a mark, a success, or none at all."""
    breaker = Breaker(1, last=2, min_calls=2, open_for=1, max_keys=None if key is None else 9)
    with anyio.move_on_after(5):
        await in_block(breaker, "marked and cancelled", key)
    assert breaker.statistics().undecided == 1
    with suppress(ConnectionError):
        await in_block(breaker, "raised", key)
    await in_block(breaker, "succeeds", key)
    await in_block(breaker, "marked", key)
    assert breaker.state_of(key) is CLOSED
    with suppress(ConnectionError):
        await in_block(breaker, "raised", key)
    assert breaker.state_of(key) is OPEN
    with pytest.raises(BreakerOpenError):
        await in_block(breaker, "succeeds", key)
    await anyio.sleep(1)
    async with anyio.create_task_group() as group:
        group.start_soon(in_block, breaker, "succeeds", key)
        await anyio.sleep(0.5)
        with pytest.raises(BreakerOpenError):
            await in_block(breaker, "succeeds", key)
    assert breaker.state_of(key) is CLOSED
    now = breaker.statistics()
    assert (now.calls, now.failed, now.undecided, now.rejected) == (6, 3, 1, 2)


async def test_block_that_is_marked_has_failed() -> None:
    """Whatever it raises, if that is an outcome."""
    breaker = Breaker(last=1, on=ConnectionError)
    with suppress(LookupError):
        await in_block(breaker, "marked and another error")
    assert breaker.state is OPEN


async def test_block_is_timed() -> None:
    """A block may be slow, as a call may."""
    breaker = Breaker(last=1, slow=1)
    await in_block(breaker, "succeeds")
    assert breaker.state is OPEN


async def test_blocks_inside_each_other() -> None:
    """Blocks of several breakers, and several of one, each have their own outcome."""
    outer, inner = Breaker(1, last=3, min_calls=2), Breaker(1, last=1)
    async with outer, outer as second:
        second.mark_failed()
        with suppress(ConnectionError):
            await in_block(inner, "raised")
    assert outer.state is CLOSED
    assert (outer.statistics().failed, inner.state) == (1, OPEN)
    block = outer.block()
    async with block:
        pass
    with pytest.raises(RuntimeError, match=r"be entered only once\. Make one for each block"):
        await block.__aenter__()
    keyed = Breaker(max_keys=2)
    with pytest.raises(ValueError, match=r"Pass the key: block\(key\)"):
        async with keyed:
            pass
    with pytest.raises(ValueError, match=r"Pass the key: block\(key\)"):
        keyed.block()
    for _ in range(4):
        async with outer:
            pass
    assert outer.statistics().recent_calls == 3
    with pytest.raises(RuntimeError, match=r"^cannot leave <Breaker: closed> here"):
        await outer.__aexit__(None, None, None)
    await outer.block().__aexit__(None, None, None)  # nothing was entered
    await block.__aexit__(ValueError, ValueError(), None)  # and this was left
    assert outer.statistics().failed == 1


def test_block_of_a_loop_that_is_over_keeps_no_place(backend: str) -> None:
    """A probe whose loop ended may be closed anywhere, and the next call takes its place."""
    breaker = Breaker(1, last=1, open_for=0)
    run(outcomes, through(breaker), "-", backend=backend)
    block = in_block(breaker, "succeeds")
    leave_waiting(block, lambda: breaker.state is HALF_OPEN)

    async def main() -> str:
        async with Breaker():  # whoever closes it may be in another block
            block.close()
        assert breaker.statistics().undecided == 1
        return await outcomes(through(breaker), "+")

    assert run(main, backend=backend) == "+"
    assert breaker.state is CLOSED


async def test_disable() -> None:
    """disable() lets everything through and counts nothing until reset()."""
    breaker = Breaker(1, last=1)
    call = through(breaker)
    await outcomes(call, "-")
    breaker.disable()
    assert breaker.state is BreakerState.DISABLED
    assert await outcomes(call, "--+-") == "--+-"
    now = breaker.statistics()
    assert (now.disabled, now.open, now.recent_calls, now.failed) == (1, 0, 0, 4)
    breaker.reset()
    assert await outcomes(call, "-+") == "-x"
    keyed = Breaker(max_keys=2)
    keyed.disable("a")
    assert (keyed.state_of("a"), keyed.idle) == (BreakerState.DISABLED, False)
    keyed.reset("a")
    assert (keyed.statistics().disabled, keyed.idle) == (0, True)


async def test_statistics_of_what_is_remembered() -> None:
    """The shares of failed and slow calls are those that it decides by, over all keys."""
    breaker = Breaker(1, last=4, slow=1, slow_ratio=1, max_keys=9)
    assert breaker.statistics().recent_failed_ratio == 0
    call = through(breaker)
    await outcomes(call, "+-+", "a")
    await call(Sleeper(1), "b")
    now = breaker.statistics()
    shares = now.recent_calls, now.recent_failed_ratio, now.recent_slow_ratio
    assert shares == (4, 0.25, 0.25)


async def test_listeners_hear_of_it() -> None:
    """Every change and refusal goes to all listeners, with the names that there are."""
    events: list[PartEvent] = []
    unsubscribe = subscribe(events.append)
    try:
        breaker = Breaker(1, last=1, name="api", max_keys=2)
        call = through(breaker)
        await outcomes(call, "-+", "host")
        with suppress(BreakerOpenError):
            await in_block(breaker, "succeeds", "host")
    finally:
        unsubscribe()
    change, first, second = events
    assert isinstance(change, BreakerChange)
    assert (change.name, change.key, change.state) == ("api", "host", OPEN)
    assert isinstance(first, Refused)
    assert isinstance(second, Refused)
    assert (first.name, first.function, second.function) == ("api", "succeed", None)
    assert isinstance(first.error, BreakerOpenError)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"slow": 0}, ValueError, "^slow=0 would make every call slow"),
        ({"slow": -1}, ValueError, "^slow=-1 is less than 0"),
        ({"slow_ratio": 0}, ValueError, "^slow_ratio=0 is not a ratio"),
        ({"consecutive": 0}, ValueError, "^consecutive=0 is less than 1"),
        ({"consecutive": 21}, ValueError, "^consecutive=21 would never be reached: only last=20"),
        ({"half_open_ratio": 1.5}, ValueError, "^half_open_ratio=1.5 is not a ratio"),
        ({"half_open_ratio": -1}, ValueError, "^half_open_ratio=-1 is less than 0"),
        ({"failed": 500}, TypeError, "^failed=500 is an int, which is not callable"),
        (
            {"failed": succeed},
            TypeError,
            "^failed=.* is an async function, whose coroutine",
        ),
    ],
)
def test_refused_rules(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    """A rule that makes no sense is named, with the way out."""
    with pytest.raises(kind, match=message):
        Breaker(**arguments)
