"""Loads, refreshes and errors that are kept, against a plain model with times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.cache import TTLCache
from mtaio.cache._policy import POLICIES
from mtaio.testing import assert_quiescent, run, settle
from mtaio.types import EvictionPolicy
from tests.cache.whole import assert_whole

if TYPE_CHECKING:
    from collections.abc import Callable

# All are sums of powers of two, so that moments meet exactly.
WAITS = st.sampled_from([0.25, 0.5, 1, 1.5, 2, 4])
TTLS = st.sampled_from([0, 1, 2, 3, math.inf])
KEYS = st.sampled_from("ab")


class LoadError(Exception):
    """What a loader raises."""


@dataclass
class Held:
    """What the model has for a key."""

    result: int | LoadError
    soft: float
    renew: float
    expires: float

    @property
    def is_value(self) -> bool:
        """Whether it is no error."""
        return not isinstance(self.result, LoadError)


class Model:
    """A dict, and what is due when."""

    def __init__(self, *, stale: float, ahead: float, error_ttl: float, idle: float) -> None:
        self.stale = stale
        self.ahead = ahead
        self.error_ttl = error_ttl
        self.idle = idle
        self.renews = stale > 0 or ahead != math.inf
        self.held: dict[str, Held] = {}
        self.hits = self.misses = self.loads = self.failures = 0

    def there(self, key: str) -> Held | None:
        """Return what is kept for a key, stale or not."""
        held = self.held.get(key)
        return held if held is not None and anyio.current_time() < held.expires else None

    def live(self, key: str) -> Held | None:
        """Return what is a value for every operation."""
        held = self.there(key)
        return held if held and held.is_value and anyio.current_time() < held.soft else None

    def begin(self, held: Held, ttl: float) -> None:
        """Let its time begin now."""
        now = anyio.current_time()
        held.soft = now + ttl
        held.renew = min(now + ttl * self.ahead, held.soft) if ttl else now
        held.expires = min(held.soft + self.stale, now + self.idle)

    def set(self, key: str, value: int, ttl: float) -> None:
        """Store a value."""
        self.held.pop(key, None)
        if ttl:
            held = Held(value, 0, 0, 0)
            self.begin(held, ttl)
            self.held[key] = held

    def use(self, held: Held) -> int | LoadError:
        """Serve it."""
        self.hits += 1
        if held.is_value:
            held.expires = min(held.soft + self.stale, anyio.current_time() + self.idle)
        return held.result

    def get(self, key: str) -> int | LoadError | None:
        """Read a value, and load nothing."""
        held = self.live(key)
        if held is None:
            self.misses += 1
            return None
        return self.use(held)

    def load(self, key: str, result: int | LoadError, ttl: float) -> None:
        """Take in what a load brought."""
        self.loads += 1
        if not isinstance(result, LoadError):
            self.set(key, result, ttl)
            return
        self.failures += 1
        now = anyio.current_time()
        held = self.there(key)
        if held is not None:
            held.renew = max(held.renew, now + self.error_ttl)
        elif self.error_ttl:
            end = now + self.error_ttl
            self.held[key] = Held(result, end, end, end)

    def get_or_set(self, key: str, result: int | LoadError, ttl: float) -> int | LoadError:
        """Read a value or an error; load if there is none, or if it is due."""
        held = self.there(key)
        if held is None:
            self.misses += 1
            self.load(key, result, ttl)
            return result
        answer = self.use(held)
        due = self.renews and held.is_value and anyio.current_time() >= held.renew
        if due and held.renew != math.inf:
            self.load(key, result, ttl)
        return answer


Step = tuple[Any, ...]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), WAITS),
        st.tuples(st.just("get_or_set"), KEYS, st.booleans(), TTLS),
        st.tuples(st.just("get_or_set"), KEYS, st.booleans(), TTLS),
        st.tuples(st.just("refresh"), KEYS, st.booleans(), TTLS),
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("set"), KEYS, TTLS),
        st.tuples(st.just("touch"), KEYS, TTLS),
        st.tuples(st.just("delete"), KEYS),
    ),
    min_size=3,
    max_size=25,
)


@settings(max_examples=100)
@given(
    steps=STEPS,
    times=st.fixed_dictionaries(
        {
            "stale": st.sampled_from([0.0, 2.0]),
            "ahead": st.sampled_from([math.inf, 0.5]),
            "error_ttl": st.sampled_from([0.0, 1.5]),
            "idle": st.sampled_from([math.inf, 1.5]),
        }
    ),
    policy=st.sampled_from(POLICIES),
)
def test_loads_do_what_the_model_does(
    backend: str,
    steps: list[Step],
    times: dict[str, float],
    policy: EvictionPolicy,
) -> None:
    """Whatever is loaded, kept, refreshed and fails, and when, callers get what the model says."""
    cache: TTLCache[int] = TTLCache(
        2,
        max_size=100,
        policy=policy,
        stale_while_revalidate=times["stale"],
        refresh_ahead=None if times["ahead"] == math.inf else times["ahead"],
        error_ttl=times["error_ttl"],
        idle_ttl=None if times["idle"] == math.inf else times["idle"],
    )
    model = Model(**times)

    async def main() -> None:
        async with cache:
            for number, step in enumerate(steps):
                await take(cache, model, number, step)
                await settle()
                assert_whole(cache)
                now = cache.statistics()
                assert (now.hits, now.misses) == (model.hits, model.misses)
                assert (now.loads, now.failed) == (model.loads, model.failures)
                for key in "ab":
                    live = model.live(key)
                    assert (key in cache) == (live is not None)
        assert_quiescent(cache)

    run(main, backend=backend)


async def take(cache: TTLCache[int], model: Model, number: int, step: Step) -> None:
    """Do one step with both."""
    what, *args = step
    if what == "wait":
        await anyio.sleep(args[0])
        return
    key = args[0]
    if what in {"get_or_set", "refresh"}:
        await take_load(cache, model, number, step)
    elif what == "get":
        assert await cache.get(key) == model.get(key)
    elif what == "set":
        await cache.set(key, number, args[1])
        model.set(key, number, args[1])
    elif what == "touch":
        held = model.live(key)
        assert await cache.touch(key, args[1]) == (held is not None)
        if held is not None and args[1]:
            model.begin(held, args[1])
        elif held is not None:
            del model.held[key]
    else:
        assert await cache.delete(key) == (model.live(key) is not None)
        model.held.pop(key, None)


async def take_load(cache: TTLCache[int], model: Model, number: int, step: Step) -> None:
    """Do one step that may load with both."""
    what, key, fails, ttl = step
    result = LoadError(number) if fails else number

    async def load() -> int:
        if isinstance(result, LoadError):
            raise result
        return result

    expected: int | LoadError
    call: Callable[..., Any]
    if what == "refresh":
        model.load(key, result, ttl)
        expected, call = result, cache.refresh
    else:
        expected, call = model.get_or_set(key, result, ttl), cache.get_or_set
    answer: object
    try:
        answer = await call(key, load, ttl=ttl)
    except LoadError as error:
        answer = error  # which equals itself alone
    assert answer == expected
