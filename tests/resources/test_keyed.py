"""What KeyedRateLimiter promises."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio._internal import clock
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.exceptions import LimitError, LimitTimeoutError, RateLimitError
from mtaio.resources import KeyedRateLimiter, RateLimiter
from mtaio.statistics import KeyStatistics
from mtaio.testing import run, settle
from tests.clocks import by_hand
from tests.closed_loops import leave_waiting
from tests.injection import struck, suspensions

if TYPE_CHECKING:
    from collections.abc import Callable


def held(limiter: KeyedRateLimiter) -> tuple[int, int]:
    """Return how many keys are held, and how many were forgotten."""
    statistics = limiter.statistics()
    return statistics.keys, statistics.forgotten


def takes(limiter: KeyedRateLimiter, key: object, tokens: float = 1) -> bool:
    """Return whether ``acquire_nowait`` grants."""
    try:
        limiter.acquire_nowait(key, tokens)
    except RateLimitError:
        return False
    return True


# --- Keys -------------------------------------------------------------------------------------


async def test_each_key_has_a_bucket_of_its_own() -> None:
    """What one key takes is not missing in another."""
    limiter = KeyedRateLimiter(2, burst=3)
    for key in ("a", "b", ("a", 1), None, 7):
        for _ in range(3):
            await limiter.acquire(key)
        with pytest.raises(RateLimitError):
            limiter.acquire_nowait(key)
    assert anyio.current_time() == 0
    await limiter.acquire("a")
    assert anyio.current_time() == 0.5
    assert limiter.statistics().keys == 5


async def test_day_one_5_waiting_for_one_key_blocks_no_other() -> None:
    """PyrateLimiter#191, #301: a task that waits for one key delays none that waits for another."""
    limiter = KeyedRateLimiter(1)
    granted: dict[str, list[float]] = {}

    async def ask(key: str) -> None:
        await limiter.acquire(key)
        granted.setdefault(key, []).append(anyio.current_time())

    async with anyio.create_task_group() as group:
        for key in ("a", "a", "a", "b", "b", "c"):
            group.start_soon(ask, key)
            await settle()
        await anyio.sleep(0.5)
        group.start_soon(ask, "d")
    assert granted == {"a": [0, 1, 2], "b": [0, 1], "c": [0], "d": [0.5]}


async def test_reset_of_a_key_or_of_all() -> None:
    """The bucket of one key is full again, None among them, or those of all; waiters get theirs."""
    limiter = KeyedRateLimiter(0.25, max_keys=3)
    for key in ("a", None, "b"):
        limiter.acquire_nowait(key)
    limiter.reset("unknown")
    limiter.reset(None)
    assert takes(limiter, None)
    assert not takes(limiter, "a")
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire, "a")
        await settle()
        limiter.reset()
        await settle()
        assert limiter.statistics().waiting == 0
    assert anyio.current_time() == 0
    assert not takes(limiter, "a")
    assert takes(limiter, "new")
    assert held(limiter) == (2, 2)  # the others had become idle
    limiter.reset("a")
    assert takes(limiter, "another")


class Incomparable:
    """A key that fails as it is compared."""

    def __hash__(self) -> int:
        return hash("a")

    def __eq__(self, other: object) -> bool:
        raise TypeError(other)


async def test_what_cannot_be_a_key_is_refused() -> None:
    """With the key and the way out; what a key of one's own raises is raised as it is."""
    limiter = KeyedRateLimiter(1)
    limiter.acquire_nowait("a")
    wrong: Any = ["a"]
    for call in (limiter.reset, limiter.acquire_nowait, limiter.statistics_for):
        with pytest.raises(TypeError, match=r"^key=\['a'\] cannot be hashed: unhashable .* Pass"):
            call(wrong)
    with pytest.raises(TypeError, match=r"^key=\['a'\] cannot be hashed: "):
        await limiter.run(anyio.sleep, 0, key=wrong)
    with pytest.raises(TypeError, match=r"^a$"):
        limiter.acquire_nowait(Incomparable())
    assert limiter.statistics().acquired == 1


async def test_timeout_and_tokens_are_the_keys_own() -> None:
    """``tokens`` and ``timeout`` mean what they mean to RateLimiter."""
    limiter = KeyedRateLimiter(1, burst=2, name="api")
    await limiter.acquire("a", 2)
    with pytest.raises(
        LimitTimeoutError,
        match=r"^<KeyedRateLimiter 'api' 1/s burst=2 key='a'> cannot grant 2 tokens within 1 s",
    ) as caught:
        await limiter.acquire("a", 2, timeout=1)
    assert (caught.value.retry_after, caught.value.name) == (2, "api")
    await limiter.acquire("a", 0.5, timeout=1)
    assert anyio.current_time() == 0.5
    await limiter.acquire("a", 0)
    limiter.acquire_nowait("a", 0)
    for tokens in (3, -1, math.nan):
        with pytest.raises(ValueError, match=r"^(cannot acquire 3 tokens|tokens=)"):
            await limiter.acquire("a", tokens)


async def test_key_that_cannot_be_hashed() -> None:
    """A key that cannot be a dict's is refused as a dict would."""
    limiter = KeyedRateLimiter(1)
    wrong: Any = []
    with pytest.raises(TypeError, match=r"list"):
        await limiter.acquire(wrong)
    with pytest.raises(TypeError, match=r"list"):
        limiter.acquire_nowait(wrong)
    assert held(limiter) == (0, 0)


async def test_decorator_finds_the_key() -> None:
    """The decorator calls ``key`` with the arguments, ``self`` included, and acquires for it."""
    limiter = KeyedRateLimiter(1, burst=2)

    class Client:
        def __init__(self, host: str) -> None:
            self.host = host

        @limiter(key=lambda self, path, **_: (self.host, path), tokens=2, timeout=0.5)
        async def get(self, path: str, *, verbose: bool = False) -> str:
            return f"{self.host}{path}{verbose}"

    client = Client("h")
    assert await client.get("/a") == "h/aFalse"
    assert await client.get("/b", verbose=True) == "h/bTrue"
    with pytest.raises(LimitTimeoutError):
        await client.get("/a")
    assert await Client("other").get("/a") == "other/aFalse"
    assert limiter.statistics_for(("h", "/a")).tokens == 0


def test_decorator_refuses() -> None:
    """What the decorator cannot work with is refused when it decorates."""
    limiter = KeyedRateLimiter(1, burst=2)
    wrong: Any = "user"
    with pytest.raises(TypeError, match=r"^key='user' is a str, which is not callable\. Pass a pl"):
        limiter(key=wrong)
    with pytest.raises(ValueError, match=r"^cannot acquire 3 tokens: the bucket never holds"):
        limiter(key=str, tokens=3)
    with pytest.raises(ValueError, match=r"^timeout=-1 is less than 0\."):
        limiter(key=str, timeout=-1)
    plain: Any = print
    with pytest.raises(TypeError, match=r"^@KeyedRateLimiter cannot decorate <built-in function"):
        limiter(key=str)(plain)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate": -1}, ValueError, r"^rate=-1 is less than 0\."),
        ({"burst": 0}, ValueError, r"^burst=0 is less than 1\."),
        ({"per": 0}, ValueError, r"^per=0 is not a finite number"),
        ({"slack": -1}, ValueError, r"^slack=-1 is less than 0\."),
        ({"max_keys": 0}, ValueError, r"^max_keys=0 is less than 1\. Pass how many keys may be"),
        ({"max_keys": 1.5}, TypeError, r"^max_keys=1\.5 is a float, not an int\."),
        ({"idle_ttl": -1}, ValueError, r"^idle_ttl=-1 is less than 0\. Pass seconds >= 0, or math"),
        ({"idle_ttl": None}, TypeError, r"^idle_ttl=None is a NoneType, not a number\."),
    ],
)
def test_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """An option that makes no sense is refused with the value, the reason and the way out."""
    with pytest.raises(error, match=message):
        KeyedRateLimiter(**{"rate": 5, **options})


async def test_repr_and_properties() -> None:
    """A limiter shows its name, its limits and how many keys it holds."""
    limiter = KeyedRateLimiter(0.5, burst=2, per=60, slack=0.1, name="api")
    assert repr(limiter) == "<KeyedRateLimiter 'api' 0.5/60 s burst=2 keys=0>"
    assert (limiter.rate, limiter.burst, limiter.per, limiter.slack, limiter.name) == (
        *(0.5, 2, 60),
        *(0.1, "api"),
    )
    limiter = KeyedRateLimiter(5)
    assert limiter.slack == RateLimiter(5).slack
    await limiter.acquire("a")
    assert repr(limiter) == "<KeyedRateLimiter 5/s burst=1 keys=1>"


async def test_any_number_of_keys() -> None:
    """With ``max_keys=None`` no key is refused."""
    limiter = KeyedRateLimiter(1, max_keys=None)
    for key in range(10_001):
        limiter.acquire_nowait(key)
    assert held(limiter) == (10_001, 0)
    assert limiter.statistics().max_keys is None


# --- Forgetting -------------------------------------------------------------------------------


async def test_idle_key_is_forgotten_after_its_time() -> None:
    """A key is forgotten once it has been full, with no task waiting, for ``idle_ttl``."""
    limiter = KeyedRateLimiter(1, burst=4, idle_ttl=10)
    await limiter.acquire("a", 3)  # full at 3
    await anyio.sleep(12.75)
    await limiter.acquire("b")
    assert held(limiter) == (2, 0)
    await anyio.sleep(0.25)
    await limiter.acquire("c")
    assert held(limiter) == (2, 1)
    assert limiter.statistics_for("a").tokens == 4


async def test_idle_key_is_kept_for_a_minute() -> None:
    """Unless told otherwise an idle key is forgotten after 60 seconds."""
    limiter = KeyedRateLimiter(1)
    await limiter.acquire("a")
    await anyio.sleep(60.875)
    await limiter.acquire("b")
    assert held(limiter) == (2, 0)
    await anyio.sleep(0.125)
    await limiter.acquire("c")
    assert held(limiter) == (2, 1)


async def test_use_starts_the_time_again() -> None:
    """A key that is used stays, however long ago it was taken in."""
    limiter = KeyedRateLimiter(1, idle_ttl=10)
    for number in range(20):
        await limiter.acquire("a")
        await limiter.acquire(number)
        await anyio.sleep(8)
    assert limiter.statistics_for("a").tokens == 1
    assert held(limiter) == (1 + 2, 18)


async def test_limited_key_is_never_forgotten() -> None:
    """A key whose bucket is not full stays, even if idle keys need not be kept for a moment."""
    limiter = KeyedRateLimiter(1, burst=100, idle_ttl=0)
    await limiter.acquire("a", 100)
    for number in range(99):
        await anyio.sleep(1)
        await limiter.acquire(number)
        assert limiter.statistics_for("a").tokens == number + 1
    await anyio.sleep(1)
    await limiter.acquire("last")
    assert held(limiter) == (1, 100)


async def test_key_with_waiters_is_never_forgotten() -> None:
    """A key for which tasks wait stays, while others come and go."""
    limiter = KeyedRateLimiter(1, burst=4, max_keys=2, idle_ttl=0)
    await limiter.acquire("a", 4)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(limiter.acquire, "a", 4)
        await anyio.sleep(0.5)
        for number in range(1, 20):
            await anyio.sleep(1)
            await limiter.acquire(number, 0)
            assert limiter.statistics_for("a").waiting == 5 - number // 4
        assert held(limiter) == (2, 18)
    assert anyio.current_time() == 20


async def test_key_about_to_be_used_makes_no_room() -> None:
    """A key with a full bucket stays while a call for it yields, before it takes its tokens."""
    limiter = KeyedRateLimiter(1, burst=5, max_keys=1, idle_ttl=0)
    for _ in range(FAST_CALLS - 1):
        await limiter.acquire("a", 0)
    await anyio.sleep(10)

    def meanwhile() -> None:
        assert limiter.statistics_for("a") == KeyStatistics(
            tokens=5, waiting=1, next_grant_seconds=0, held_seconds=0
        )
        assert not takes(limiter, "b")

    assert await struck(limiter.acquire("a"), 1, meanwhile) == 1
    assert limiter.statistics_for("a").tokens == 4


async def test_longest_idle_makes_room() -> None:
    """At ``max_keys`` the key idle longest is forgotten for a new one, before its time."""
    limiter = KeyedRateLimiter(1, burst=10, max_keys=3, idle_ttl=math.inf)
    await limiter.acquire("slow", 10)  # idle at 10
    await limiter.acquire("first", 2)  # idle at 2
    await limiter.acquire("second", 3)  # idle at 3
    await anyio.sleep(5)
    await limiter.acquire("new", 5)
    await limiter.acquire("second", 0)
    assert held(limiter) == (3, 1)
    assert limiter.statistics_for("slow").tokens == 5
    await limiter.acquire("newer", 6)
    assert held(limiter) == (3, 2)
    with pytest.raises(RateLimitError) as caught:
        limiter.acquire_nowait("newest")
    assert caught.value.retry_after == 5  # "slow" and "new" at 10, "newer" at 11


async def test_no_room_for_a_new_key() -> None:
    """With ``max_keys`` limited keys a new one is refused, at once, and told when to come again."""
    limiter = KeyedRateLimiter(1, burst=5, max_keys=2, name="api")
    await limiter.acquire("a", 3)
    await limiter.acquire("b", 5)
    await anyio.sleep(0.5)
    message = (
        r"^<KeyedRateLimiter 'api' 1/s burst=5 keys=2> has no room for key='c': max_keys=2 are "
        r"held and none is idle; the first may be in 2\.5 s\. Raise max_keys, or try again then\.$"
    )
    for timeout in (None, 100):
        with pytest.raises(RateLimitError, match=message) as caught:
            await limiter.acquire("c", timeout=timeout)
        assert not isinstance(caught.value, LimitTimeoutError)
        assert (caught.value.retry_after, caught.value.name) == (2.5, "api")
    with pytest.raises(RateLimitError, match=message):
        limiter.acquire_nowait("c")
    assert limiter.statistics().rejected_keys == 3
    await limiter.acquire("a", 2)  # those that are held go on as ever
    with pytest.raises(RateLimitError) as caught:
        limiter.acquire_nowait("c")
    assert caught.value.retry_after == 4.5
    await anyio.sleep(caught.value.retry_after)
    await limiter.acquire("c")
    assert held(limiter) == (2, 1)


async def test_room_is_found_when_waiters_gave_up() -> None:
    """A key for which many waited is idle as soon as they gave up and its bucket is full."""
    limiter = KeyedRateLimiter(1, max_keys=1)
    await limiter.acquire("a")
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(limiter.acquire, "a")
        await anyio.sleep(0.5)
        assert not takes(limiter, "b")
        group.cancel_scope.cancel()
    assert limiter.statistics().cancelled == 100
    await anyio.sleep(0.5)
    assert takes(limiter, "b")


async def test_many_idle_keys_go_little_by_little() -> None:
    """Forgetting is spread over later calls, whichever, and never takes long in one of them."""
    limiter = KeyedRateLimiter(1, idle_ttl=5)
    for number in range(1000):
        limiter.acquire_nowait(number)
    await anyio.sleep(6)
    forgotten = [0]
    for _ in range(130 * FAST_CALLS):
        limiter.acquire_nowait(0, 0)
        forgotten.append(limiter.statistics().forgotten)
    assert max(after - before for before, after in pairwise(forgotten)) <= 16
    assert held(limiter) == (1, 999)


def wait_for(call: Callable[..., None], *args: float) -> float:
    """Return after how long a call should be tried again, 0 if it was granted."""
    try:
        call(*args)
    except RateLimitError as error:
        return error.retry_after
    return 0


STEPS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 5), st.sampled_from([1, 1, 2, 3])), max_size=60
)


@given(STEPS, st.integers(1, 4), st.sampled_from([0, 0.5, 2, math.inf]))
@settings(max_examples=200)
def test_forgetting_changes_no_answer(
    steps: list[tuple[int, int, int]], max_keys: int, idle_ttl: float
) -> None:
    """Each key gets what a limiter of its own would give; new ones are refused if none is idle."""
    moment = 0.0
    with clock.reading_from(lambda: moment):
        limiter = KeyedRateLimiter(4, burst=3, max_keys=max_keys, idle_ttl=idle_ttl)
        alone = [RateLimiter(4, burst=3) for _ in range(6)]
        for pause, key, tokens in steps:
            moment += pause / 16
            fill_in = {
                number: (3 - other.statistics().tokens) / 4 for number, other in enumerate(alone)
            }
            limited = {number for number, seconds in fill_in.items() if seconds}
            refused = limiter.statistics().rejected_keys
            answer = wait_for(limiter.acquire_nowait, key, tokens)
            if limiter.statistics().rejected_keys > refused:
                assert key not in limited
                assert len(limited) == max_keys
                assert answer == min(fill_in[number] for number in limited)
                continue
            assert answer == wait_for(alone[key].acquire_nowait, tokens)
            statistics = limiter.statistics()
            assert len(limited - {key}) <= statistics.keys <= max_keys
            for number, other in enumerate(alone):
                assert limiter.statistics_for(number).tokens == other.statistics().tokens
        assert limiter.statistics().acquired == sum(other.statistics().acquired for other in alone)


# --- Fairness ---------------------------------------------------------------------------------


async def test_one_call_in_64_yields_whatever_the_keys() -> None:
    """A loop over calls that need not wait is fair, also if each has a key of its own."""
    limiter = KeyedRateLimiter(1, max_keys=5 * FAST_CALLS)
    suspended = [await suspensions(limiter.acquire(key)) for key in range(4 * FAST_CALLS)]
    assert sum(suspended) == 4
    limiter = KeyedRateLimiter(math.inf)
    suspended = [await suspensions(limiter.acquire("key")) for _ in range(4 * FAST_CALLS)]
    assert 4 <= sum(suspended) <= 8


async def test_call_that_yields_counts_as_waiting_while_it_does() -> None:
    """And no longer: of all keys together."""
    limiter = KeyedRateLimiter(1, burst=1000)
    waiting: list[int] = []
    for _ in range(10 * FAST_CALLS):
        await struck(
            limiter.acquire("key"), 1, lambda: waiting.append(limiter.statistics().waiting)
        )
    assert max(waiting) == 1
    assert limiter.statistics().waiting == 0


async def test_refused_calls_yield() -> None:
    """A loop over refusals is fair: by one key, by many, or because there is no room."""
    limiter = KeyedRateLimiter(1, max_keys=FAST_CALLS)

    async def refused(key: object) -> int:
        async def call() -> None:
            with pytest.raises(LimitError):
                await limiter.acquire(key, timeout=0)

        return await suspensions(call())

    for key in range(FAST_CALLS):
        limiter.acquire_nowait(key)
    for keys in ([0], range(FAST_CALLS), range(1000, 1003)):
        suspended = [await refused(key) for _ in range(4 * FAST_CALLS) for key in keys]
        once_in_64 = len(suspended) // FAST_CALLS
        assert once_in_64 <= sum(suspended) <= 2 * once_in_64


async def test_cancelled_where_it_yields() -> None:
    """Cancelled in the call that yields, nothing was taken."""
    limiter = KeyedRateLimiter(1)
    for key in range(FAST_CALLS - 1):
        await limiter.acquire(key)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire("new")
    assert scope.cancelled_caught
    assert limiter.statistics_for("new").tokens == 1
    assert limiter.statistics().cancelled == 1
    assert limiter.statistics().acquired == FAST_CALLS - 1


# --- Change at run time, statistics -----------------------------------------------------------


async def test_day_one_7_new_limits_reach_every_key() -> None:
    """aiolimiter#98: new limits apply to keys held, to tasks that wait, and to keys to come."""
    limiter = KeyedRateLimiter(1, burst=2)
    await limiter.acquire("a", 2)
    granted: list[float] = []

    async def ask() -> None:
        await limiter.acquire("a")
        granted.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(0.5)
        limiter.rate = 4
        limiter.burst = 3
    assert granted == [0.625]
    assert (limiter.rate, limiter.burst) == (4, 3)
    await limiter.acquire("b", 3)
    limiter.reconfigure(rate=8, burst=1)
    await limiter.acquire("b")
    assert anyio.current_time() == 0.75
    with pytest.raises(ValueError, match=r"^rate=-1 is less than 0\."):
        limiter.reconfigure(rate=-1, burst=5)
    assert (limiter.rate, limiter.burst) == (8, 1)


async def test_higher_rate_makes_keys_idle_earlier() -> None:
    """After the rate was raised a key that is full again by then makes room."""
    limiter = KeyedRateLimiter(1, burst=100, max_keys=2)
    await limiter.acquire("a", 100)
    await limiter.acquire("b", 50)
    assert not takes(limiter, "c")
    limiter.rate = 100
    await anyio.sleep(0.5)
    assert takes(limiter, "c")


async def test_paused_keys() -> None:
    """While paused, a key with a full bucket may be forgotten, a limited one not until it flows."""
    limiter = KeyedRateLimiter(0, burst=2, max_keys=2)
    await limiter.acquire("a", 2)
    await limiter.acquire("b", 0)
    await limiter.acquire("c", 1)
    assert held(limiter) == (2, 1)
    with pytest.raises(RateLimitError, match=r"none will be while the rate is 0\.") as caught:
        limiter.acquire_nowait("d")
    assert caught.value.retry_after == math.inf
    limiter.rate = 1
    await anyio.sleep(1)
    await limiter.acquire("d")
    assert limiter.statistics_for("a") == KeyStatistics(
        tokens=1, waiting=0, next_grant_seconds=0, held_seconds=0
    )


async def test_no_limit_at_first() -> None:
    """Made without a limit, the keys keep to their burst from the first finite rate on."""
    limiter = KeyedRateLimiter(math.inf, burst=3, max_keys=2)
    for key in range(10):
        await limiter.acquire(key, 1000)
    limiter.rate = 3
    assert limiter.burst == 3
    assert takes(limiter, "new", 3)
    assert not takes(limiter, "new")


async def test_statistics() -> None:
    """Everything is counted for all keys together; a key shows what it holds."""
    limiter = KeyedRateLimiter(1, max_keys=2)
    await limiter.acquire("a")
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire, "a")
        await settle()
        with anyio.move_on_after(0.5):
            await limiter.acquire("a")
        limiter.acquire_nowait("b")
        assert not takes(limiter, "b")
        with pytest.raises(LimitTimeoutError):
            await limiter.acquire("a", timeout=0.5)
        assert not takes(limiter, "c")
        statistics = limiter.statistics()
        assert (statistics.keys, statistics.max_keys, statistics.forgotten) == (2, 2, 0)
        assert (statistics.waiting, statistics.acquired, statistics.cancelled) == (1, 2, 1)
        assert (statistics.rate, statistics.burst) == (1, 1)
        assert (statistics.rejected, statistics.timed_out, statistics.rejected_keys) == (1, 1, 1)
        assert limiter.statistics_for("a") == KeyStatistics(
            tokens=0.5, waiting=1, next_grant_seconds=0.5, held_seconds=0
        )
        assert limiter.statistics_for("c") == KeyStatistics(
            tokens=1, waiting=0, next_grant_seconds=0, held_seconds=0
        )
        assert held(limiter) == (2, 0)
    statistics = limiter.statistics()
    assert (statistics.waiting, statistics.acquired) == (0, 3)
    assert (statistics.wait_seconds, statistics.max_wait_seconds) == (1, 1)


# --- Clocks and loops -------------------------------------------------------------------------


async def test_clock_that_takes_over() -> None:
    """When another clock takes over, limited keys stay limited, and idle ones make room."""
    with by_hand(1000.0) as hands:
        limiter = KeyedRateLimiter(1, burst=4, max_keys=2)
        limiter.acquire_nowait("a", 4)
        hands.now += 1
        limiter.acquire_nowait("b", 2)
        hands.take_over(0.0)
        assert not takes(limiter, "c")
        hands.now = 1.75
        assert not takes(limiter, "c")
        hands.now = 2.0
        assert takes(limiter, "c")
        assert limiter.statistics_for("a").tokens == 3


def test_key_whose_tasks_are_of_a_closed_loop_makes_room(backend: str) -> None:
    """Tasks of an event loop that was closed while they waited do not keep their key."""
    limiter = KeyedRateLimiter(1, max_keys=1)

    async def use_another_key() -> None:
        assert not takes(limiter, "b")
        await anyio.sleep(2)
        assert takes(limiter, "b")

    limiter.acquire_nowait("a")
    coroutine = limiter.acquire("a")
    leave_waiting(coroutine, lambda: limiter.statistics().waiting)
    run(use_another_key, backend=backend)
    with pytest.raises(RuntimeError):  # AnyIO's: the scope in it finds no loop to leave
        coroutine.close()
    assert held(limiter) == (1, 1)
