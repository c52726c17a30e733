"""Keyed: a part for each key, which of them are forgotten, and how a pipeline finds the key."""

from __future__ import annotations

import gc
import warnings
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.exceptions import BreakerOpenError, LimitError, RateLimitError
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    BreakerState,
    Call,
    Fallback,
    Keyed,
    OrderWarning,
    PartEvent,
    Pipeline,
    Refused,
    Retry,
    Timeout,
    subscribe,
)
from mtaio.resources import ConcurrencyLimiter, Quota, RateLimiter, ResourceLimiter
from mtaio.statistics import BreakerStatistics, RateLimiterStatistics, RetryStatistics
from mtaio.testing import Victim, injections, run
from tests.resilience.calls import fail, succeed
from tests.resilience.parts import Bare, Failing, Marked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable

    from mtaio.testing._inject import Mode
    from mtaio.types import Next

CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN


def breaker_of(key: Hashable) -> Breaker:
    """Make a breaker that one failure opens."""
    return Breaker(1, last=1, open_for=10, name=f"api {key}")


async def test_each_key_has_a_part() -> None:
    """The part of a key is made on first use, and only its own calls go through it."""
    made: list[Hashable] = []

    def factory(key: Hashable) -> Breaker:
        made.append(key)
        return breaker_of(key)

    keyed = Keyed(factory, max_keys=5, name="hosts")
    api = Pipeline(keyed, Timeout(1))
    assert made == []
    with pytest.raises(ConnectionError):
        await api.run(fail, key="a")
    assert await api.run(succeed, key="b") == "answer"
    with pytest.raises(BreakerOpenError, match=r"^<Breaker 'api a': open> refuses"):
        await api.run(succeed, key="a")
    assert await keyed.run(succeed, key="b") == "answer"  # by itself: the same part
    assert made == ["a", "b"]
    assert (keyed.part("a").state, keyed.part("b").state) == (OPEN, CLOSED)
    assert keyed.held_keys() == ["a", "b"]
    assert repr(keyed) == "<Keyed 'hosts': 2 of 5 keys>"
    assert str(keyed).endswith(".factory, max_keys=5)")
    assert (keyed.name, keyed.kind) == ("hosts", "breaker")
    with pytest.raises(ValueError, match=r"^the call of succeed has no key, and <Keyed"):
        await api.run(succeed)
    for part in (api, Breaker(max_keys=1)):
        with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed: .*\. Pass what can be"):
            await part.run(succeed, key=[])  # type: ignore[arg-type] # a list
    with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed"):
        keyed.part([])  # type: ignore[arg-type] # as above


async def test_forgets_the_part_used_longest_ago() -> None:
    """For another key, the idle part that was used longest ago is forgotten."""
    keyed = Keyed(breaker_of, max_keys=2)
    for key in "abac":
        await keyed.run(succeed, key=key)
    assert keyed.held_keys() == ["a", "c"]
    now = keyed.statistics()
    assert (now.keys, now.max_keys, now.made, now.forgotten, now.rejected) == (2, 2, 3, 1, 0)


async def one_slot(part: ConcurrencyLimiter) -> None:
    """Take a slot of a limiter, and keep it."""
    await part.acquire()


LIMITING: dict[str, tuple[Callable[[Any], Any], float | None]] = {
    "rate": (lambda _: RateLimiter(0.5, burst=2), 2.0),
    "window": (lambda _: RateLimiter.window(2, per=4), 4.0),
    "resource": (lambda _: ResourceLimiter(rate=RateLimiter(0.5)), 2.0),
    "quota": (lambda _: Quota(requests=1, tokens=100, per=4), 4.0),
    "own word": (lambda _: Busy(3.0), 3.0),
    "retry": (lambda _: Retry(2), 0.0),
    "timeout": (lambda _: Timeout(5), 0.0),
    "adaptive": (lambda _: AdaptiveLimiter(), 0.0),
    "mute": (lambda _: Marked("mute", []), 0.0),
    "breaker": (breaker_of, 0.0),
}


class Busy:
    """A part of one's own, which says for some time that it is not idle."""

    def __init__(self, seconds: float) -> None:
        self.until = anyio.current_time() + seconds

    @property
    def idle(self) -> bool:
        """Whether the time is over."""
        return anyio.current_time() >= self.until

    def wrap(self, then: Next) -> Next:
        """Leave it as it is."""
        return then


@pytest.mark.parametrize("kind", LIMITING)
async def test_what_limits_is_not_forgotten(kind: str) -> None:
    """A part makes room for another once a new one would limit no less, and not before."""
    make, seconds = LIMITING[kind]
    made: list[Any] = []

    def factory(key: Hashable) -> object:
        made.append(key)
        return make(key)

    keyed: Keyed[Any] = Keyed(factory, max_keys=1)
    await keyed.run(succeed, key="a")
    if seconds:
        await anyio.sleep(seconds - 0.1)
        with pytest.raises(LimitError, match=r"^<Keyed: 1 of 1 keys> has no room for key='b': the"):
            await keyed.run(succeed, key="b")
        assert made == ["a"]  # none is made in vain
        await anyio.sleep(0.1)
    await keyed.run(succeed, key="b")
    assert (keyed.held_keys(), made) == (["b"], ["a", "b"])


async def test_open_breaker_is_not_forgotten() -> None:
    """Neither is one that was opened or disabled by hand, until its time is over."""
    keyed = Keyed(breaker_of, max_keys=1)
    with suppress(ConnectionError):
        await keyed.run(fail, key="a")
    for seconds in (0, 9.5):
        await anyio.sleep(seconds)
        with pytest.raises(LimitError):
            keyed.part("b")
    await anyio.sleep(0.5)
    keyed.part("b").disable()
    with pytest.raises(LimitError):
        keyed.part("c")
    keyed.part("b").reset()
    assert keyed.part("c").state is CLOSED


async def test_call_keeps_its_part() -> None:
    """A part with a call in it stays, as one does whose slot was taken directly."""
    keyed = Keyed(lambda _: ConcurrencyLimiter(1), max_keys=2)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(keyed.run, anyio.sleep, 1, key="a"))
        await anyio.sleep(0.5)
        assert keyed.statistics().in_flight == 1
        await one_slot(slots := keyed.part("b"))
        with pytest.raises(LimitError):
            await keyed.run(succeed, key="c")
        assert keyed.statistics().rejected == 1
    slots.release()
    await keyed.run(succeed, key="c")
    assert set(keyed.held_keys()) == {"b", "c"}  # a was looked at before, and then b


async def test_few_are_looked_at() -> None:
    """However many keys there are, a new one looks at a hundred; the next one at others."""
    keyed = Keyed(breaker_of, max_keys=250)
    for key in range(250):
        if key != 220:
            keyed.part(key).force_open()
    keyed.part(220)
    for key in range(221, 250):
        keyed.part(key)
    for _ in range(2):
        with pytest.raises(LimitError):
            keyed.part("new")
    assert keyed.part("new").state is CLOSED
    assert 220 not in keyed.held_keys()


async def test_refusals_let_others_run() -> None:
    """A key for which there is no room is refused with an event, and some refusals yield."""
    keyed = Keyed(breaker_of, max_keys=1, name="hosts")
    keyed.part("a").force_open()
    events: list[PartEvent] = []
    unsubscribe = subscribe(events.append)
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(320):
            with suppress(LimitError):
                await keyed.run(succeed, key="b")
        group.cancel_scope.cancel()
    unsubscribe()
    assert ran >= 4
    refused = [event for event in events if isinstance(event, Refused)]
    assert len(refused) == 320
    assert (refused[0].name, refused[0].function) == ("hosts", "succeed")


async def test_factory_that_fails_changes_nothing() -> None:
    """What it raises comes out of the call; no part was forgotten for it, and it is asked again."""
    answers: list[Any] = [ValueError("unknown host"), "no part", breaker_of("b")]

    def factory(key: str) -> Breaker:
        if key == "a":
            return breaker_of(key)
        answer: Any = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        part: Breaker = answer
        return part

    keyed = Keyed(factory, max_keys=1)
    kept = keyed.part("a")
    with pytest.raises(ValueError, match=r"^unknown host$"):
        await keyed.run(succeed, key="b")
    with pytest.raises(TypeError, match=r"^'no part' is a str, which cannot be part of a pipeline"):
        await keyed.run(succeed, key="b")
    assert keyed.part("a") is kept
    await keyed.run(succeed, key="b")
    now = keyed.statistics()
    assert (now.made, now.forgotten, now.rejected, now.in_flight) == (2, 1, 0, 0)


async def test_order_is_checked_with_the_first_part() -> None:
    """The rules for the order know the kind of the parts from the first of them on."""
    keyed = Keyed(breaker_of)
    twice = Pipeline(Breaker(), keyed, Timeout(1))
    with pytest.raises(ValueError, match=r"^Breaker\(1, last=1, .*two breakers in one pipeline"):
        await twice.run(succeed, key="a")
    with pytest.raises(ValueError, match="two breakers in one pipeline"):
        await twice.run(succeed, key="b")
    assert keyed.statistics().in_flight == 0
    with pytest.warns(OrderWarning, match="stands outside of Retry"):
        Pipeline(keyed, Retry(2), Timeout(1))  # its kind is known by now
    outside = Pipeline(Keyed(breaker_of), Retry(2), Timeout(1))
    with pytest.warns(OrderWarning, match="stands outside of Retry"):
        await outside.run(succeed, key="a")
    blind = Pipeline(Timeout(1), Keyed(breaker_of))
    with pytest.warns(OrderWarning, match="has a timeout outside and none inside"):
        await blind.run(succeed, key="a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await blind.run(succeed, key="b")  # once is enough


async def test_statistics_are_sums() -> None:
    """Counts are added up over all keys, and do not fall when a part is forgotten."""
    keyed = Keyed(breaker_of, max_keys=2)
    api = Pipeline(keyed, Timeout(1))
    for key in "abc":
        await api.run(succeed, key=key)
    with suppress(ConnectionError):
        await api.run(fail, key="c")
    (name,) = keyed.statistics().parts
    total: BreakerStatistics = api.statistics().parts["keyed"].parts[name]
    assert name == "breaker"
    assert (total.calls, total.failed, total.open, total.opened) == (4, 1, 1, 1)
    assert (total.recent_calls, total.recent_failed_ratio, total.max_keys) == (1, 0, None)
    assert keyed.statistics_for("a") is None
    assert keyed.statistics_for("c").calls == 2
    limits = Keyed(lambda key: RateLimiter(key, burst=key), max_keys=5)
    await limits.run(succeed, key=3)
    await limits.run(succeed, key=5)
    rates: RateLimiterStatistics = limits.statistics().parts["rate_limiter"]
    assert (rates.acquired, rates.rate, rates.burst, rates.tokens) == (2, 5, 5, 4)
    slots = Keyed(lambda _: ConcurrencyLimiter(2), max_keys=5)
    for key in "ab":
        await slots.run(succeed, key=key)
    assert slots.statistics().parts["concurrency_limiter"].peak == 1
    kinds = Keyed(lambda key: Bare() if key == "bare" else Timeout(key, total=True), max_keys=5)
    for kind in (1, "bare"):
        await kinds.run(succeed, key=kind)
    assert list(kinds.statistics().parts) == ["total_timeout"]
    assert kinds.statistics_for("bare") == "fine"


async def test_retry_for_each_key() -> None:
    """A policy that several keys share counts for each."""
    patient, policy = Retry(3, wait_initial=1, jitter=0), Retry(1)
    keyed = Keyed(lambda key: patient if key == "vip" else policy)
    api = Pipeline(keyed)
    assert await api.run(Failing(2), key="vip") == 1
    with pytest.raises(ConnectionError):
        await api.run(Failing(2), key="anybody")
    total: RetryStatistics = keyed.statistics().parts["retry"]
    assert (total.calls, total.retried, total.failed) == (2, 2, 1)
    assert keyed.part("vip") is patient


async def test_fallback_of_a_key_gets_the_arguments() -> None:
    """A fallback that is made later has by position what was passed by name."""
    api = Pipeline(Keyed(lambda key: Fallback(lambda _, city: f"{key}: {city}")))

    @api(key=lambda city: city[0])
    async def weather(city: str) -> str:
        raise ConnectionError(city)

    assert await weather(city="Kyoto") == "K: Kyoto"


async def test_pipelines_share_parts() -> None:
    """Each pipeline has its own inside, the parts are the same; one that is gone leaves nothing."""
    marks: list[str] = []
    keyed = Keyed(lambda key: Marked(key, marks), max_keys=1)
    x, y = Marked("x", marks), Marked("y", marks)
    first, second = Pipeline(keyed, x), Pipeline(keyed, y)
    for api in (first, second, first):
        await api.run(succeed, key="a")
    around = ["a in", "x in", "x out", "a out"]
    assert marks == [*around, "a in", "y in", "y out", "a out", *around]
    gone = ref(y)
    del second, y, api
    gc.collect()
    assert gone() is None
    forgotten = ref(keyed.part("a"))
    await first.run(succeed, key="b")
    assert (keyed.held_keys(), marks[-4]) == (["b"], "b in")
    gc.collect()
    assert forgotten() is None


async def test_stream_keeps_its_part_to_the_end() -> None:
    """A stream is in the part of its key until it is closed, and so is one that fails to open."""
    keyed = Keyed(lambda _: ConcurrencyLimiter(1), max_keys=1)
    api = Pipeline(keyed, Timeout(5), key=lambda key: key)

    async def numbers(key: str) -> AsyncGenerator[str]:
        if key == "bad":
            raise ConnectionError
        yield key
        yield key

    async with api.stream(numbers, "a") as items:
        async for item in items:
            assert (item, keyed.statistics().in_flight) == ("a", 1)
            with pytest.raises(LimitError):
                await keyed.run(succeed, key="b")
            break
    with pytest.raises(ConnectionError):
        async with api.stream(numbers, "bad"):
            pass
    async with keyed.stream(numbers, "b", key="b") as items:
        assert [item async for item in items] == ["b", "b"]
    assert (keyed.statistics().in_flight, keyed.held_keys()) == (0, ["b"])


def test_in_one_loop_after_another(backend: str) -> None:
    """The parts stay as they are from one event loop to the next."""
    keyed = Keyed(breaker_of)
    with pytest.raises(ConnectionError):
        run(partial(keyed.run, fail, key="a"), backend=backend)
    with pytest.raises(BreakerOpenError):
        run(partial(keyed.run, succeed, key="a"), backend=backend)


@pytest.mark.parametrize("mode", ["checkpoint", "step", "native"])
def test_cancelled_anywhere(mode: Mode, backend: str) -> None:
    """A call that is cancelled leaves no part in use, and what it took is given back."""
    if mode == "native":
        backend = "asyncio"  # whose own Task.cancel() it is

    async def scenario(victim: Victim) -> None:
        keyed = Keyed(lambda _: ConcurrencyLimiter(1), max_keys=1)
        api = Pipeline(Retry(2, wait_initial=1), keyed, Timeout(9), key=lambda: "a")

        async def call() -> None:
            with suppress(ConnectionError):  # it had failed as the cancellation came
                await api.run(Failing(1, seconds=1))

        async with anyio.create_task_group() as group:
            group.start_soon(victim, call)
            group.start_soon(call)
        now = keyed.statistics()
        assert (now.in_flight, now.parts["concurrency_limiter"].in_use) == (0, 0)
        await keyed.run(succeed, key="b")

    for victim in injections(mode):
        run(scenario, victim, backend=backend)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"factory": Breaker()}, TypeError, "^factory=<Breaker: closed> is itself a part"),
        ({"factory": 5}, TypeError, "^factory=5 is an int, which is not callable"),
        ({"factory": succeed}, TypeError, "^factory=.* is an async function and would not be"),
        ({"factory": breaker_of, "max_keys": 0}, ValueError, "^max_keys=0 is less than 1"),
        ({"factory": breaker_of, "max_keys": None}, TypeError, "^max_keys=None is a NoneType"),
    ],
    ids=["part", "number", "async", "no keys", "no limit"],
)
def test_refused_arguments(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    """A value that makes no sense is named, with the way out."""
    with pytest.raises(kind, match=message):
        Keyed(**arguments)


async def test_refusal_holds_the_part_of_its_key() -> None:
    """A retry whose call was refused holds what limits its key, and no other."""
    limits = Keyed(lambda _: RateLimiter(100), max_keys=9)
    api = Pipeline(
        Retry(3, throttled=OSError, retry_after=lambda _: 5, hold=limits),
        limits,
        Timeout(1),
        key=lambda host: host,
    )
    refusals = [OSError("429")]
    ended: dict[str, float] = {}

    async def request(host: str) -> None:
        if host == "a" and refusals:
            raise refusals.pop()

    async def call(host: str) -> None:
        await api.run(request, host)
        ended[host] = anyio.current_time()

    async with anyio.create_task_group() as group:
        for host in "ab":
            group.start_soon(call, host)
    assert ended["b"] == 0
    assert 5 <= ended["a"] < 7  # with some jitter
    with pytest.raises(TypeError, match=r"^<Breaker 'api a': closed> has no hold\(\)"):
        Keyed(breaker_of).hold("a", 1)


# ---- the key of a call ---------------------------------------------------------------------------


class Keys:
    """A part that notes the keys of the calls."""

    def __init__(self) -> None:
        self.seen: list[Hashable] = []

    def wrap(self, then: Next) -> Next:
        """Note the key."""

        async def through(call: Call) -> Any:
            self.seen.append(call.key)
            return await then(call)

        return through


async def fetch(host: str, *, path: str = "/") -> str:
    """Return what is to be fetched."""
    return f"{host}{path}"


async def join(first: str, second: str) -> str:
    """Return both."""
    return first + second


async def letters(host: str, path: str = "") -> AsyncGenerator[str]:
    """Yield each character."""
    for letter in host + path:
        yield letter


async def test_pipeline_finds_the_key() -> None:
    """A pipeline's own function finds it, unless one is given for the call or the decorator."""
    keys = Keys()
    api = Pipeline(keys, key=lambda host, path="/": (host, path))
    await api.run(fetch, "a")
    await api.run(partial(fetch, path="/p"), "b")
    inner = partial(fetch, path="/1")
    inner.note = 1  # type: ignore[attr-defined] # or else Python makes one partial of the two
    await api.run(partial(inner, "c", path="/2"))
    await api.run(partial(join, "x"), "y")
    await api.run(fetch, "d", key="mine")
    await api(fetch)("e", path="/q")
    await api(key=lambda host: host)(fetch)("f")
    rest = ["mine", ("e", "/q"), "f", ("g", "/"), ("h", "/s"), "i"]
    async with api.stream(letters, "g") as items:
        assert [item async for item in items] == ["g"]
    for decorated in api(letters)("h", "/s"), api(key=lambda host: host)(letters)("i"):
        async with decorated as items:
            assert [item async for item in items]
    assert keys.seen == [("a", "/"), ("b", "/p"), ("c", "/2"), ("x", "y"), *rest]


async def test_key_that_is_not_found() -> None:
    """None is no key: a part that needs one refuses the call. What the function raises passes."""
    api = Pipeline(Keyed(breaker_of), key=lambda host: hosts[host])
    hosts: dict[str, str | None] = {"a": "A", "b": None}
    assert await api.run(fetch, "a") == "a/"
    with pytest.raises(ValueError, match=r"to the decorator or the pipeline"):
        await api.run(fetch, "b")
    with pytest.raises(ValueError, match=r"^the call of fetch has no key"):
        await api(fetch)("b")
    with pytest.raises(KeyError):
        await api.run(fetch, "c")
    assert api.statistics().calls == 1


async def test_key_that_nobody_needs() -> None:
    """Parts that keep no state for a key do not have it looked for."""

    def key(host: str) -> str:
        raise AssertionError(host)

    api = Pipeline(Retry(2), RateLimiter(1000), key=key)
    assert await api.run(fetch, "a") == "a/"
    assert await api(fetch)("a") == "a/"
    with pytest.raises(TypeError, match=r"^key=5 is an int, which is not callable"):
        Pipeline(Keys(), key=5)  # type: ignore[arg-type] # no function
    with pytest.raises(
        TypeError, match=r"^key=.* is an async function, and a key is found without"
    ):
        Pipeline(Keys(), key=fetch)  # type: ignore[arg-type] # its coroutine


async def test_limit_for_each_key() -> None:
    """Two hosts have their own limits, in one pipeline."""
    limits = Keyed(lambda _: RateLimiter(1), max_keys=9)
    api = Pipeline(limits, Timeout(5), key=lambda host: host)
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        for host in "aabb":
            group.start_soon(partial(api.run, fetch, host))
    assert anyio.current_time() - began == 1
    with pytest.raises(RateLimitError):
        limits.part("a").acquire_nowait()
