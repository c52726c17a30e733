"""The contract of caches: good ones pass, and each kind of wrong one breaks its own clause."""

from __future__ import annotations

import math
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal.clock import now
from mtaio.cache import TTLCache
from mtaio.cache._policy import POLICIES
from mtaio.testing import ContractError, check_cache
from mtaio.types import EvictionPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

LOADING: ContextVar[frozenset[Hashable]] = ContextVar("loading", default=frozenset())


@dataclass(frozen=True)
class Statistics:
    """How many tasks wait."""

    waiting: int


class Load:
    """One load."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.done = False
        self.value: Any = None
        self.error: Exception | None = None


class Shelf:
    """A good cache, as short as it goes; the wrong ones differ from it in one place."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.values: dict[Hashable, tuple[Any, float]] = {}
        self.loads: dict[Hashable, Load] = {}
        self.waiting = 0

    def look(self, key: Hashable) -> tuple[Any, float] | None:
        """Return what is there and not over."""
        held = self.values.get(key)
        return held if held is not None and now() < held[1] else None

    def put(self, key: Hashable, value: Any, ttl: float) -> None:
        """Store, and give up the oldest for it."""
        self.values.pop(key, None)
        if ttl > 0:
            while len(self.values) >= self.capacity:
                del self.values[next(iter(self.values))]
            self.values[key] = value, now() + ttl

    async def get(self, key: Hashable, default: Any = None) -> Any:
        """Return what is there."""
        held = self.look(key)
        return default if held is None else held[0]

    async def set(self, key: Hashable, value: Any, ttl: float = 60) -> None:
        """Store, and let no load undo that."""
        self.loads.pop(key, None)
        self.put(key, value, ttl)

    async def delete(self, key: Hashable) -> Any:
        """Remove, and let no load undo that."""
        self.loads.pop(key, None)
        there = self.look(key)
        self.values.pop(key, None)
        return there is not None

    async def get_or_set(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Return what is there, or load it, or wait for the task that does."""
        while True:
            held = self.look(key)
            if held is not None:
                return held[0]
            self.refuse_recursion(key)
            current = self.loads.get(key)
            if current is None:
                return await self.lead(key, load)
            await self.follow(current)
            if current.error is not None:
                raise current.error
            if current.done:
                return current.value

    def refuse_recursion(self, key: Hashable) -> None:
        """Raise if this key is being loaded by the task that asks."""
        if (id(self), key) in LOADING.get():
            raise RuntimeError("this load would wait for itself")

    async def follow(self, current: Load) -> None:
        """Wait for a load."""
        self.waiting += 1
        try:
            await current.over.wait()
        finally:
            self.waiting -= 1

    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Load, and tell those who wait."""
        current = self.loads[key] = Load()
        token = LOADING.set(LOADING.get() | {(id(self), key)})
        try:
            current.value = await load()
            self.keep(key, current)
        except Exception as error:
            current.error = error
            raise
        finally:
            LOADING.reset(token)
            self.end(key, current)
        return current.value

    def keep(self, key: Hashable, current: Load) -> None:
        """Keep what was loaded, unless it is no longer wanted."""
        current.done = True
        if self.loads.get(key) is current:
            self.put(key, current.value, 60)

    def end(self, key: Hashable, current: Load) -> None:
        """Let those who wait go on."""
        if self.loads.get(key) is current:
            del self.loads[key]
        current.over.set()

    def statistics(self) -> Statistics:
        """Return how many tasks wait."""
        return Statistics(self.waiting)


class NoneIsNothing(Shelf):
    async def get(self, key: Hashable, default: Any = None) -> Any:
        """Take None for a miss."""
        found = await super().get(key)
        return default if found is None else found


class SetsOnce(Shelf):
    async def set(self, key: Hashable, value: Any, ttl: float = 60) -> None:
        """Leave what is there."""
        if self.look(key) is None:
            await super().set(key, value, ttl)


class NeverMisses(Shelf):
    async def get(self, key: Hashable, _: Any = None) -> Any:
        """Know no default."""
        return await super().get(key)


class DeletesSilently(Shelf):
    async def delete(self, key: Hashable) -> Any:
        """Say nothing."""
        await super().delete(key)


class DeletesNothing(Shelf):
    async def delete(self, key: Hashable) -> Any:
        """Leave it."""
        return self.look(key) is not None


class LoadsForNone(Shelf):
    async def get_or_set(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Take None for a miss."""
        held = self.look(key)
        if held is not None and held[0] is None:
            return await load()
        return await super().get_or_set(key, load)


class NeverExpires(Shelf):
    def put(self, key: Hashable, value: Any, ttl: float) -> None:
        """Keep it for ever."""
        super().put(key, value, math.inf if ttl else 0)


class ZeroIsTheDefault(Shelf):
    def put(self, key: Hashable, value: Any, ttl: float) -> None:
        """Take 0 for none given."""
        super().put(key, value, ttl or 60)


class ExpiresEarly(Shelf):
    def put(self, key: Hashable, value: Any, ttl: float) -> None:
        """Keep it for half the time."""
        super().put(key, value, ttl / 2)


class CountsWhatIsOver(Shelf):
    async def delete(self, key: Hashable) -> Any:
        """Say that there was a value, though its time was over."""
        there = key in self.values
        await super().delete(key)
        return there


class StaleTimer(Shelf):
    def put(self, key: Hashable, value: Any, ttl: float) -> None:
        """Let the first time count."""
        held = self.look(key)
        super().put(key, value, ttl)
        if held is not None and key in self.values:
            self.values[key] = value, held[1]


class ADayAtMost(Shelf):
    def put(self, key: Hashable, value: Any, ttl: float) -> None:
        """Know no infinity."""
        super().put(key, value, min(ttl, 86400))


class Unbounded(Shelf):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity + 1)


class KeepsNothing(Shelf):
    def look(self, key: Hashable) -> tuple[Any, float] | None:
        """Forget what does not fit all at once."""
        return super().look(key) if len(self.values) < self.capacity or self.capacity > 2 else None


class BoundsWhatIsSet(Shelf):
    def keep(self, key: Hashable, current: Load) -> None:
        """Store in spite of the limit."""
        super().keep(key, current)
        self.values[key] = current.value, now() + 60

    def put(self, key: Hashable, value: Any, ttl: float) -> None:
        """Hold the limit only where nothing is loaded."""
        if not self.loads:
            super().put(key, value, ttl)


class EachForItself(Shelf):
    async def get_or_set(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Load whatever others do."""
        held = self.look(key)
        if held is not None:
            return held[0]
        self.refuse_recursion(key)
        return await self.lead(key, load)


class OneAfterAnother(Shelf):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.lock: Any = None

    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Load under one lock."""
        self.lock = self.lock or anyio.Lock()

        async def locked() -> Any:
            async with self.lock:
                return await load()

        return await super().lead(key, locked)


class LoadsInVain(Shelf):
    def keep(self, _: Hashable, current: Load) -> None:
        """Keep nothing."""
        current.done = True


class TellsOne(Shelf):
    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Raise in the task that loads alone."""
        loads: list[Load] = []

        async def noted() -> Any:
            loads.append(self.loads[key])
            return await load()

        try:
            return await super().lead(key, noted)
        except Exception:
            loads[0].error = None
            raise


class KeepsErrors(Shelf):
    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Store what was raised."""
        try:
            return await super().lead(key, load)
        except Exception as error:
            self.put(key, error, 60)
            raise


class WrapsErrors(Shelf):
    async def get_or_set(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Raise a copy."""
        try:
            return await super().get_or_set(key, load)
        except Exception as error:
            raise type(error)(*error.args) from error


class StaysBroken(Shelf):
    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Fail for ever once it has failed."""
        try:
            return await super().lead(key, load)
        except Exception:

            async def nothing() -> None:
                return None

            self.lead = lambda _, __: nothing()  # type: ignore[assignment,method-assign] # the point
            raise


class UndoesSets(Shelf):
    def keep(self, key: Hashable, current: Load) -> None:
        """Store, whatever happened meanwhile."""
        current.done = True
        self.put(key, current.value, 60)


class LetsJoinWhatIsOld(Shelf):
    async def delete(self, key: Hashable) -> Any:
        """Leave the load where others find it."""
        there = self.look(key)
        self.values.pop(key, None)
        return there is not None


class ShieldsTheLeader(Shelf):
    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Load at any price."""
        with anyio.CancelScope(shield=True):
            return await super().lead(key, load)


class WaitsForItself(Shelf):
    def refuse_recursion(self, key: Hashable) -> None:
        """Let it."""


class LoadsWithinItself(EachForItself):
    """Never waits, and so not for itself either."""

    def refuse_recursion(self, key: Hashable) -> None:
        """Let it."""


class LosesFollowers(Shelf):
    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Tell nobody of a cancellation."""
        current = self.loads[key] = Load()
        try:
            current.value = await load()
        except Exception as error:
            current.error = error
            self.end(key, current)
            raise
        self.keep(key, current)
        self.end(key, current)
        return current.value

    def refuse_recursion(self, key: Hashable) -> None:
        """Know nothing of it: the clause is left out."""


class SharesCancellation(Shelf):
    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Fail everybody when the leader is cancelled."""
        current: Load | None = None

        async def noted() -> Any:
            nonlocal current
            current = self.loads[key]
            return await load()

        try:
            return await super().lead(key, noted)
        except anyio.get_cancelled_exc_class():
            if current is not None:
                current.error = RuntimeError("the load was cancelled")
            raise


class ForgetsWaiters(Shelf):
    async def follow(self, current: Load) -> None:
        """Count cancelled tasks for ever."""
        self.waiting += 1
        await current.over.wait()
        self.waiting -= 1


class PassesItOn(Shelf):
    """Each task that was told tells the next, unless it is cancelled just then."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.queue: deque[anyio.Event] = deque()

    async def follow(self, _: Load) -> None:
        """Wait to be told, then tell the next."""
        woken = anyio.Event()
        self.queue.append(woken)
        self.waiting += 1
        try:
            await woken.wait()
        except BaseException:
            if woken in self.queue:
                self.queue.remove(woken)
            raise
        finally:
            self.waiting -= 1
        self.tell()

    def tell(self) -> None:
        """Wake the next."""
        if self.queue:
            self.queue.popleft().set()

    def end(self, key: Hashable, current: Load) -> None:
        """Wake the first."""
        super().end(key, current)
        self.tell()


class TrustsTheShield(Shelf):
    async def lead(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """Let others run between loading and telling, safe from cancel scopes alone."""
        current = self.loads[key] = Load()
        try:
            current.value = await load()
        except BaseException as error:
            current.error = error if isinstance(error, Exception) else None
            self.end(key, current)
            raise
        with anyio.CancelScope(shield=True):
            await checkpoint()
        self.keep(key, current)
        self.end(key, current)
        return current.value


class OneLoop(Shelf):
    """Keeps something of the first event loop."""

    loop: object = None

    def look(self, key: Hashable) -> tuple[Any, float] | None:
        """Refuse another loop."""
        loop = anyio.lowlevel.current_token().native_token
        self.loop = self.loop or loop
        if loop is not self.loop:
            raise RuntimeError("this is another event loop")
        return super().look(key)


class ForgetsBetweenLoops(Shelf):
    """Starts empty in each event loop."""

    loop: object = None

    def look(self, key: Hashable) -> tuple[Any, float] | None:
        """Drop what another loop has left."""
        loop = anyio.lowlevel.current_token().native_token
        if self.loop not in {None, loop}:
            self.values.clear()
        self.loop = loop
        return super().look(key)


class NotEntered:
    """Ours, with its operations alone, so that callers load."""

    def __init__(self, capacity: int) -> None:
        cache: TTLCache[Any] = TTLCache(60, max_size=capacity)
        self.get, self.set, self.delete = cache.get, cache.set, cache.delete
        self.get_or_set = cache.get_or_set
        self.statistics = cache.statistics


@pytest.mark.heavy
@pytest.mark.parametrize(
    "factory",
    [
        Shelf,
        NotEntered,
        lambda capacity: TTLCache(60, max_size=capacity, stale_while_revalidate=5, idle_ttl=1e10),
        lambda capacity: TTLCache(
            60, max_size=capacity, weigher=lambda *_: 1, on_removed=lambda *_: None
        ),
    ],
    ids=["Shelf", "not entered", "stale", "weighed"],
)
def test_good_caches_are_accepted(factory: Callable[[int], Any]) -> None:
    """Ours in all its ways, and any other that holds to the contract."""
    check_cache(factory, seeds=5, exhaustive=1)


@pytest.mark.heavy
@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_is_accepted(policy: EvictionPolicy) -> None:
    """Whatever is evicted, the contract holds."""
    check_cache(
        lambda capacity: TTLCache(60, max_size=capacity, policy=policy), seeds=5, exhaustive=None
    )


WRONG: list[tuple[Callable[[int], Any], str, str]] = [
    (NoneIsNothing, "value", r"get\(\) returned the default for a key that was set to None"),
    (SetsOnce, "value", r"get\(\) returned 'value' for a key that was then set to 'other'"),
    (NeverMisses, "value", r"get\(\) returned None, not the default, for a missing key"),
    (DeletesSilently, "value", r"delete\(\) returned that there was no value"),
    (DeletesNothing, "value", r"delete\(\) returned twice that there was a value"),
    (LoadsForNone, "value", r"get_or_set\(\) loaded a key that was set to None"),
    (NeverExpires, "time", r"was still found after 11"),
    (ZeroIsTheDefault, "time", r"get\(\) returned 'value' for a key that was set for 0 seconds"),
    (ExpiresEarly, "time", r"was not found after 9"),
    (CountsWhatIsOver, "time", r"delete\(\) returned that there was a value, which"),
    (StaleTimer, "time", r"a key that was set again expired with its earlier value"),
    (ADayAtMost, "time", r"a value with math\.inf seconds to live was not found"),
    (Unbounded, "bound", r"3 values were found, with room for 2"),
    (KeepsNothing, "bound", r"no value was found, with room for 2"),
    (BoundsWhatIsSet, "bound", r"[3-6] values were found after loads, with room for 2"),
    (EachForItself, "load", r"3 loads were made for 3 callers at once"),
    (OneAfterAnother, "load", r"2 loads of different keys, of 1 second each, took 2\.0 seconds"),
    (LoadsInVain, "load", r"a value that was loaded was loaded again"),
    (TellsOne, "error", r"3 loads were made for 3 callers at once"),
    (
        KeepsErrors,
        "error",
        r"\d of 3 callers got the error|returned _LoadError\('load 1'\) after",
    ),
    (WrapsErrors, "error", r"a caller got another error than the one"),
    (StaysBroken, "error", r"after a load that failed, get_or_set\(\) returned None"),
    (UndoesSets, "change", r"get\(\) returned 'old', though the key was set during the load"),
    (LetsJoinWhatIsOld, "change", r"second caller got 'old', though the key was del"),
    (ShieldsTheLeader, "deadline", r"the first caller had 2 s, and waited for 50"),
    (WaitsForItself, "recursion", r"a load that asked for its own key waited for itself"),
    (SharesCancellation, "checkpoint", r"the load was cancelled"),
    (ForgetsWaiters, "checkpoint", r"not quiescent: .* has waiting=[1-9]"),
    (OneLoop, "reuse", r"this is another event loop"),
    (
        ForgetsBetweenLoops,
        "reuse",
        r"returned the default for a key that an earlier event loop set",
    ),
]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("factory", "clause", "seen"), WRONG, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_wrong_cache_breaks_its_clause(
    factory: Callable[[int], Any], clause: str, seen: str
) -> None:
    """Each mistake is found, and named for what it is."""
    message = (
        rf"(?s)^{factory.__name__} breaks the clause '{clause}' of the contract of a cache: .*"
        rf"\. Seen: \w+: .*({seen})"
    )
    with pytest.raises(ContractError, match=message) as info:
        check_cache(factory, seeds=10, exhaustive=1, backends=["asyncio"])
    assert info.value.clause == clause


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("factory", "clause", "without"),
    [
        (LosesFollowers, "checkpoint", ["deadline", "recursion"]),
        (PassesItOn, "step", []),
        (TrustsTheShield, "native", ["recursion"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_caller_that_is_lost(
    factory: Callable[[int], Any], clause: str, without: list[str]
) -> None:
    """A task that waits for a cancelled one is missed, by the clause that says when."""
    message = (
        rf"(?s)^{factory.__name__} breaks the clause '{clause}' of .*Seen: AssertionError: the "
        rf"(second|third|next|first) caller got nothing, after another was cancelled"
    )
    with pytest.raises(ContractError, match=message):
        check_cache(factory, seeds=0, exhaustive=None, backends=["asyncio"], without=without)


def test_a_load_that_need_not_wait_may_ask_for_its_own_key() -> None:
    """What is forbidden is to wait for oneself, not to load within a load."""
    others = ["load", "error", "checkpoint", "step", "native"]
    check_cache(LoadsWithinItself, seeds=1, exhaustive=0, without=others)


def test_errors_that_are_not_kept_are_right() -> None:
    """A cache of ours holds to the clause about errors."""
    others = ["load", "checkpoint", "step", "native"]
    check_cache(
        lambda capacity: TTLCache(60, max_size=capacity), seeds=0, exhaustive=None, without=others
    )


def test_errors_that_are_kept_break_their_clause() -> None:
    """A cache of ours that is told to keep errors is held to all but that clause."""

    def make(capacity: int) -> TTLCache[Any]:
        return TTLCache(60, max_size=capacity, error_ttl=5)

    with pytest.raises(ContractError, match=r"breaks the clause 'error' "):
        check_cache(make, seeds=0, exhaustive=None)
    check_cache(make, seeds=0, exhaustive=None, without=["error"])


def test_refusals() -> None:
    """What cannot be checked is refused before anything is searched."""
    with pytest.raises(TypeError, match=r"^factory=3 is an int, which is not callable\. Pass what"):
        check_cache(3)  # type: ignore[arg-type] # is the point
    with pytest.raises(
        TypeError, match=r"^\S*<lambda> made \{\}, which has no set, delete, get_or_s"
    ):
        check_cache(lambda _: {})
    with pytest.raises(ValueError, match=r"^without='speed' is not a clause of the contract\."):
        check_cache(Shelf, without=["speed"])
