"""Every public method of mtaio.redis, called from where its loop does not run: `tests.threads`."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from itertools import count
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from anyio import to_thread

from mtaio import redis
from mtaio.events import EventEmitter
from mtaio.redis import (
    JSON,
    Bridge,
    LeaderTerm,
    Lease,
    RedisBreaker,
    RedisConcurrencyLimiter,
    RedisKeyedRateLimiter,
    RedisLeader,
    RedisQuota,
    RedisRateLimiter,
    RedisStore,
    TieredCache,
    bridge,
)
from mtaio.redis._slots import EXCHANGE
from tests.redis.answering import answering_store
from tests.redis.caching import caching_store
from tests.redis.exchanging import Slots
from tests.redis.leading import Elections
from tests.redis.memory import MemoryStore
from tests.redis.reserving import reserving_store
from tests.redis.streaming import StreamStore
from tests.threads import (
    PLACES,
    Case,
    check_elsewhere,
    check_without_a_loop,
    public,
    readable,
    within,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class _Link:
    """Stands for the endpoint of a store, and for the connection to it: a server in memory."""

    name = "redis://memory:6379/0"
    timeout = 1.0
    failing_since = math.inf

    def __init__(self, server: MemoryStore) -> None:
        self.server = server
        self.script = server.script
        self.scan = server.scan
        self.cluster = server.cluster
        self.command = server.command

    async def open(self) -> _Link:
        return self

    async def close(self, reason: str = "") -> None:
        del reason

    def is_unread(self, _: object) -> bool:
        return False


class Store(RedisStore):  # type: ignore[misc] # final for those who use it
    """A real store, apart from the client behind it."""

    def __init__(self, server: MemoryStore) -> None:
        super().__init__(_Link.name)
        self.server = server
        self._endpoint: Any = _Link(server)

    @asynccontextmanager
    async def subscribe(self, *args: Any, **options: Any) -> AsyncGenerator[None]:
        """Subscribe at the server in memory."""
        self._block()
        async with self.server.subscribe(*args, **options):
            yield


def _store_of(made: Any) -> Any:
    if isinstance(made, RedisQuota):
        return made._tasks.store
    return made._model._store if isinstance(made, RedisKeyedRateLimiter) else made._store


@asynccontextmanager
async def in_store(made: Any) -> AsyncGenerator[Any]:
    """Enter the store of a limiter."""
    store: Any = _store_of(made)
    async with store.server, store:
        yield made


@asynccontextmanager
async def in_cache(made: Any) -> AsyncGenerator[Any]:
    """Enter a cache and its store."""
    async with in_store(made), made:
        yield made


@asynccontextmanager
async def in_server(made: Any) -> AsyncGenerator[Any]:
    """Enter a store."""
    async with made.server, made:
        yield made


@asynccontextmanager
async def in_bridge(made: Any) -> AsyncGenerator[Any]:
    """Enter a bridge and its store."""
    async with (
        in_server(made.store),
        bridge(made.emitter, made.store, stream="orders", group="ship") as made.bridge,
    ):
        yield made


async def term(leader: RedisLeader) -> LeaderTerm:
    """Return the time for which it leads."""
    await leader.wait_leader()
    with leader.hold() as made:
        return made


async def second(*_: object) -> int:
    """Take a second."""
    await anyio.sleep(1)
    return 1


async def endless() -> AsyncGenerator[int]:
    """Count."""
    for number in count():
        yield number


async def hold(limiter: Any) -> None:
    """Hold a slot for a second."""
    async with limiter:
        await anyio.sleep(1)


async def its_bridge(made: Any) -> Any:
    """Return the bridge."""
    return made.bridge


def ping(data: Any, now: float, keys: list[str], args: list[Any]) -> str:
    """Answer."""
    del data, now, keys, args
    return "PONG"


def nothing(*_: object) -> None:
    """Do nothing."""


def store() -> Store:
    """Return a store whose server knows a script and the commands that are sent here."""
    return Store(MemoryStore({EXCHANGE: ping}, {"PING": ping, "PUBLISH": ping}))


CASES: Final[dict[type, Case]] = {
    RedisStore: Case(store, second, around=in_server),
    RedisRateLimiter: Case(
        lambda: RedisRateLimiter(Store(reserving_store()), "key", 1, burst=1),
        lambda it: it.acquire(),
        around=in_store,
    ),
    RedisKeyedRateLimiter: Case(
        lambda: RedisKeyedRateLimiter(Store(reserving_store()), "key", 1, burst=1),
        lambda it: it.acquire("ada"),
        around=in_store,
    ),
    RedisQuota: Case(
        lambda: RedisQuota(Store(answering_store()), "key", requests=1),
        lambda it: it.acquire(),
        around=in_store,
    ),
    RedisBreaker: Case(
        lambda: RedisBreaker(Store(answering_store()), "key"),
        lambda it: it.run(second),
        around=in_store,
    ),
    RedisConcurrencyLimiter: Case(
        lambda: RedisConcurrencyLimiter(Store(Slots()), "key", 1), hold, around=in_store
    ),
    Lease: Case(
        lambda: RedisConcurrencyLimiter(Store(Slots()), "key", 2),
        hold,
        around=in_store,
        wanted=lambda it: it.acquire(),
    ),
    RedisLeader: Case(
        lambda: RedisLeader(Store(Elections()), "key"), lambda it: it.wait_leader(), around=in_cache
    ),
    LeaderTerm: Case(
        lambda: RedisLeader(Store(Elections()), "key"), second, around=in_cache, wanted=term
    ),
    TieredCache: Case(
        lambda: TieredCache(Store(caching_store()), "users"),
        lambda it: it.get_or_set("key", second),
        around=in_cache,
    ),
    Bridge: Case(
        lambda: SimpleNamespace(store=Store(StreamStore()), emitter=EventEmitter(), bridge=None),
        second,
        around=in_bridge,
        wanted=its_bridge,
    ),
}

CALLS: Final[dict[type, dict[str, Callable[[Any], Any]]]] = {
    RedisStore: {
        "command": lambda it: it.command("PING"),
        "dedicated": within(lambda it: it.dedicated()),
        "ping": lambda it: it.ping(),
        "publish": lambda it: it.publish("channel", "message"),
        "scan": lambda it: it.scan("*"),
        "script": lambda it: it.script(EXCHANGE, ["key"]),
        "subscribe": within(lambda it: it.subscribe(["channel"], nothing, nothing)),
    },
    RedisRateLimiter: {
        "acquire": lambda it: it.acquire(),
        "run": lambda it: it.run(second),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "try_acquire": lambda it: it.try_acquire(),
        "window": lambda it: it.window(it._store, "key", 5),
        "wrap": lambda it: it.wrap(second),
    },
    RedisKeyedRateLimiter: {
        "acquire": lambda it: it.acquire("ada"),
        "run": lambda it: it.run(second, key="ada"),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "try_acquire": lambda it: it.try_acquire("ada"),
        "window": lambda it: it.window(it._model._store, "key", 5),
        "wrap": lambda it: it.wrap(second),
    },
    RedisQuota: {
        "acquire": lambda it: it.acquire(),
        "hold": lambda it: it.hold(0.1),
        "observe": lambda it: it.observe(remaining={"requests": 5}),
        "part": lambda it: it.part(),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "take": within(lambda it: it.take()),
        "try_acquire": lambda it: it.try_acquire(),
        "wrap": lambda it: it.wrap(second),
    },
    RedisBreaker: {
        "block": within(lambda it: it.block()),
        "disable": lambda it: it.disable(),
        "force_open": lambda it: it.force_open(),
        "reset": lambda it: it.reset(),
        "run": lambda it: it.run(second),
        "state_of": lambda it: it.state_of(None),
        "statistics": lambda it: it.statistics(),
        "stream": within(lambda it: it.stream(endless)),
        "wrap": lambda it: it.wrap(second),
        "wrap_stream": lambda it: it.wrap_stream(second),
    },
    RedisConcurrencyLimiter: {
        "acquire": lambda it: it.acquire(),
        "limit": lambda it: setattr(it, "limit", 2),
        "hold": within(lambda it: it.hold()),
        "run": lambda it: it.run(second),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "try_acquire": lambda it: it.try_acquire(),
        "wrap": lambda it: it.wrap(second),
    },
    Lease: {
        "check": lambda it: it.check(),
        "release": lambda it: it.release(),
    },
    RedisLeader: {
        "hold": lambda it: it.hold().__enter__(),
        "statistics": lambda it: it.statistics(),
        "wait_leader": lambda it: it.wait_leader(),
    },
    LeaderTerm: {
        "claim_tick": lambda it: it.claim_tick("work", 1.0),
        "last_tick": lambda it: it.last_tick("work"),
    },
    TieredCache: {
        "cached": lambda it: it.cached(str)(second),
        "clear": lambda it: it.clear(),
        "delete": lambda it: it.delete("key"),
        "delete_many": lambda it: it.delete_many(["key"]),
        "get": lambda it: it.get("key"),
        "get_many": lambda it: it.get_many(["key"]),
        "get_or_set": lambda it: it.get_or_set("key", second),
        "increment": lambda it: it.increment("key"),
        "invalidate_tag": lambda it: it.invalidate_tag("tag"),
        "set": lambda it: it.set("key", 2),
        "set_many": lambda it: it.set_many({"key": 2}),
        "touch": lambda it: it.touch("key"),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
    },
    Bridge: {
        "send": lambda it: it.send("order.paid"),
        "statistics": lambda it: it.statistics(),
    },
}

# Values, and what has no loop.
OTHERS: Final = {type(JSON), redis.Codec}

CALLS_AND_READS: Final = {
    (kind, name): call
    for kind, calls in CALLS.items()
    for name, call in ({name: attrgetter(name) for name in sorted(readable(kind))} | calls).items()
}

pytestmark = pytest.mark.usefixtures("glide")


@pytest.fixture(scope="module")
def glide() -> None:
    """Skip what makes a store where valkey-glide is not installed."""
    pytest.importorskip("glide")


def test_every_method_has_its_row() -> None:
    """A new method is a new row, and a new class its rows: this says which are missing."""
    assert {kind: public(kind) for kind in CASES} == {
        kind: set(names) for kind, names in CALLS.items()
    }
    made = {getattr(redis, name) for name in redis.__all__}
    assert {each for each in made if isinstance(each, type)} - OTHERS == set(CASES)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("kind", "name"), CALLS_AND_READS, ids=lambda part: getattr(part, "__name__", part)
)
def test_elsewhere(kind: type, name: str, place: str, backend: str) -> None:
    """Beside the loop in which tasks wait, it works, or refuses and has changed nothing."""
    check_elsewhere(CASES[kind], CALLS_AND_READS[kind, name], place, backend)


@pytest.mark.parametrize(
    ("kind", "name"), CALLS_AND_READS, ids=lambda part: getattr(part, "__name__", part)
)
def test_without_a_loop(kind: type, name: str, backend: str) -> None:
    """Where no loop runs, before any did and after, it works, or refuses with a text."""
    check_without_a_loop(CASES[kind], CALLS_AND_READS[kind, name], backend)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("by", ["limit", "release"])
async def test_a_slot_made_free_elsewhere(by: str, place: str) -> None:
    """A task that waits gets it at once: it is not left to the next call of the server."""
    async with in_store(RedisConcurrencyLimiter(Store(Slots()), "key", 1)) as limiter:
        lease = await limiter.acquire()
        got = anyio.Event()

        async def wait() -> None:
            async with limiter:
                got.set()

        def free() -> None:
            if by == "release":
                lease.release()
            else:
                limiter.limit = 2

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.5)  # nothing is underway
            assert await to_thread.run_sync(PLACES[place], free) is None
            with anyio.fail_after(0.1):
                await got.wait()
        lease.release()
