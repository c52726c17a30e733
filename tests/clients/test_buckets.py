"""ServerBuckets: no request that the server would refuse, by what it has said."""

from __future__ import annotations

import math
from collections.abc import Hashable
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtaio import Pipeline, RateLimiter, Timeout
from mtaio.clients import Route, ServerBuckets
from mtaio.exceptions import LimitTimeoutError, RateLimitError
from mtaio.testing import Victim, assert_quiescent, injections, run, settle
from tests.clients.service import Service
from tests.closed_loops import leave_waiting


async def ask_all(
    service: Service, buckets: ServerBuckets, times: int, route: Hashable = "r"
) -> None:
    """Ask so many times at once."""
    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(service.ask, buckets, route)


async def test_sends_as_many_as_the_server_says_remain() -> None:
    """One to find out, the rest of the window at once, and then window after window."""
    service, buckets = Service(3, 10), ServerBuckets()
    await ask_all(service, buckets, 8)
    assert service.moments == [0, 0, 0, 10, 10, 10, 20, 20]
    now = buckets.statistics()
    assert (now.acquired, now.waiting, now.in_flight, now.buckets) == (8, 0, 0, 1)
    assert (now.wait_seconds, now.max_wait_seconds) == (70, 20)


@pytest.mark.parametrize("unknown", [1, 2, math.inf])
async def test_an_unknown_route_is_tried_carefully(unknown: float) -> None:
    """So many at a time; what the server does not limit is not limited after that."""
    buckets = ServerBuckets(unknown=unknown)
    most = now = 0

    async def ask() -> None:
        nonlocal most, now
        async with buckets.take("r") as slot:
            now += 1
            most = max(most, now)
            await anyio.sleep(1)
            now -= 1
            slot.observe({})

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
        await anyio.sleep(0.5)
        assert most == min(5, unknown)
    assert anyio.current_time() == (1 if unknown == math.inf else 2)
    assert most == (5 if unknown == math.inf else 5 - unknown)


@example(allowed=(5, 1.0), seed=278, asks=16, loss=0.0)
@settings(max_examples=25)
@given(
    allowed=st.tuples(st.integers(1, 5), st.sampled_from([0.5, 1.0, 3.0])),
    seed=st.integers(0, 10**6),
    asks=st.integers(1, 25),
    loss=st.sampled_from([0.0, 0.2]),
)
def test_nothing_is_refused_whatever_the_ways_take(
    backend: str, allowed: tuple[int, float], seed: int, asks: int, loss: float
) -> None:
    """Responses overtake each other and windows change while they are under way."""

    async def main() -> None:
        limit, seconds = allowed
        random = Random(seed)  # noqa: S311 - for repeatable runs
        service, buckets = Service(limit, seconds, random), ServerBuckets()

        async def come_and_go() -> None:
            await anyio.sleep(random.random() * 3)
            with anyio.move_on_after(0.1 if random.random() < loss else math.inf):
                await service.ask(buckets)

        async with anyio.create_task_group() as group:
            for _ in range(asks):
                group.start_soon(come_and_go)
        # A request that was cancelled under way was counted, or not: then one may be too many.
        assert service.refused <= (asks if loss else 0)
        assert anyio.current_time() < 5 + 2 * asks / limit * (seconds + 0.6)
        now = buckets.statistics()
        assert (now.waiting, now.in_flight) == (0, 0)

    run(main, backend=backend)


async def test_routes_of_one_bucket_wait_together() -> None:
    """Also those that waited before the server said so; another channel has a limit of its own."""
    service, buckets = Service(2, 10, bucket="b"), ServerBuckets()
    other = Service(2, 10, bucket="b")
    x, y = Route("x", major=1), Route("y", major=1)
    await service.ask(buckets, x)
    async with anyio.create_task_group() as group:
        async with buckets.take(y) as slot:
            group.start_soon(ask_all, service, buckets, 2, y)
            await settle()
            group.start_soon(ask_all, service, buckets, 2, x)
            slot.observe(service.count()[1])
        group.start_soon(other.ask, buckets, Route("x", major=2))
        group.start_soon(other.ask, buckets, Route("z", major=2))
    assert service.moments == [0, 0, 10, 10, 20, 20]
    assert (service.refused, other.refused, other.moments) == (0, 0, [0, 0])
    assert buckets.statistics().buckets == 2
    await service.ask(buckets, "plain")
    assert buckets.statistics().buckets == 3


async def test_who_is_in_flight_is_counted_in_the_bucket_that_is_named() -> None:
    """Those of a route that nothing was known of, too."""
    service, buckets = Service(3, 10, bucket="b"), ServerBuckets(unknown=2)
    await service.ask(buckets, "x")
    async with anyio.create_task_group() as group, buckets.take("y"):
        async with buckets.take("y") as slot:
            slot.observe(service.count()[1])
        group.start_soon(service.ask, buckets, "x")
        await settle()
        service.count()
    assert (service.refused, service.moments) == (0, [0, 0, 0, 10])


async def test_who_waits_is_told_of_the_bucket_that_is_named() -> None:
    """As soon as a response of another channel names it: there may be more than one at a time."""
    buckets = ServerBuckets()
    said = {"X-RateLimit-Bucket": "b", "X-RateLimit-Remaining": "4", "X-RateLimit-Reset-After": "9"}
    async with buckets.take(Route("x", major=2)) as slot:
        slot.observe(said)
    async with buckets.take(Route("y", major=1)) as slot, buckets.take(Route("y", major=2)):
        async with anyio.create_task_group() as group:
            group.start_soon(Service(4, 9).ask, buckets, Route("y", major=2))
            await settle()
            assert buckets.statistics().waiting == 1
            slot.observe(said)
        assert buckets.statistics().waiting == 0


async def test_a_route_may_move_to_another_bucket() -> None:
    """The server has changed its mind; who waits for the old bucket is not lost."""
    buckets = ServerBuckets()
    one = {"X-RateLimit-Bucket": "a", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset-After": "9"}
    async with buckets.take("r") as slot:
        slot.observe(one)
    async with anyio.create_task_group() as group, buckets.take("r") as slot:
        group.start_soon(Service(5, 1, bucket="b").ask, buckets)
        await settle()
        assert buckets.statistics().waiting == 1
        slot.observe({"X-RateLimit-Bucket": "b"})
        await settle()
    assert anyio.current_time() == 0
    assert buckets.statistics().buckets == 2
    full = ServerBuckets(max_buckets=1)
    async with full.take("r") as slot:
        slot.observe(one)
        slot.observe({"X-RateLimit-Bucket": "b"})  # there is no room for it
    assert full.statistics().buckets == 1


async def test_a_refusal_holds_its_bucket() -> None:
    """For as long as the server asks, or the caller, with nothing said of what is left."""
    buckets = ServerBuckets(longest=60)
    async with buckets.take("r") as slot:
        slot.observe({"Retry-After": "5"}, refused=True)
    async with buckets.take("other"):
        assert anyio.current_time() == 0
    moments = []

    async def ask() -> None:
        async with buckets.take("r") as slot:
            moments.append(anyio.current_time())
            await anyio.sleep(1)
            slot.observe({})

    async with anyio.create_task_group() as group:
        for _ in range(7):
            group.start_soon(ask)
    assert moments == [5, 6, 6, 7, 7, 7, 7]  # one more for each that is accepted
    async with buckets.take("r") as slot:
        slot.observe({}, refused=True, pause=100)
    async with buckets.take("r"):
        assert anyio.current_time() == 8 + 60
    assert buckets.statistics().refused == 2


async def test_a_global_refusal_holds_all() -> None:
    """Those that have been allowed, and wait for the overall limit, too."""
    buckets = ServerBuckets(overall=RateLimiter(1))
    moments: list[tuple[str, float]] = []

    async def ask(route: str) -> None:
        async with buckets.take(route):
            moments.append((route, anyio.current_time()))

    async with buckets.take("a") as slot, anyio.create_task_group() as group:
        group.start_soon(ask, "b")
        await settle()
        slot.observe({"Retry-After": "5", "X-RateLimit-Global": "true"}, refused=True)
        await settle()
        group.start_soon(ask, "c")
    assert sorted(moments) == [("b", 5), ("c", 5)]
    buckets.hold(3)
    buckets.hold(2)
    await ask("b")
    assert moments[-1] == ("b", 8)


async def test_a_refusal_of_what_all_share_says_nothing_of_one_s_own_limit() -> None:
    """Discord's scope "shared": only its Retry-After counts."""
    buckets = ServerBuckets()
    said = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "50", "Retry-After": "5"}
    async with buckets.take("r") as slot:
        slot.observe(said | {"X-RateLimit-Scope": "shared"}, refused=True)
    async with buckets.take("r"):
        assert anyio.current_time() == 5


async def test_what_remains_without_a_reset() -> None:
    """Then one at a time finds out when there is more."""
    buckets = ServerBuckets()
    async with buckets.take("r") as slot:
        slot.observe({"X-RateLimit-Remaining": "0", "X-RateLimit-Remaining-Tokens": "0"})
    async with buckets.take("r") as slot:
        with anyio.move_on_after(1) as scope:
            async with buckets.take("r"):
                pass
        assert scope.cancelled_caught
        slot.observe({"X-RateLimit-Limit": "2", "X-RateLimit-Reset-After": "5"})  # says nothing
        slot.observe({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"})
    async with buckets.take("r") as slot:
        assert anyio.current_time() == 1 + 5


async def test_a_late_response_says_nothing_of_the_new_window() -> None:
    """Its window ended before that which is known began to end."""
    buckets = ServerBuckets()
    old, new = buckets.take("r"), buckets.take("r")
    said = {
        "X-RateLimit-Limit": "3",
        "X-RateLimit-Remaining": "2",
        "X-RateLimit-Reset-After": "1.5",
    }
    async with buckets.take("r") as slot:
        slot.observe(said)
    async with old:
        await anyio.sleep(2)
        async with new:
            new.observe({**said, "X-RateLimit-Reset-After": "9.5"})
        old.observe({**said, "X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "0.5"})
    async with buckets.take("r"), buckets.take("r"):
        assert anyio.current_time() == 2


def test_a_waiter_that_is_cancelled_leaves_nothing(backend: str) -> None:
    """Wherever it is struck: in the queue, behind the overall limit, in a hold, under way."""

    async def main(victim: Victim) -> None:
        service, buckets = Service(1, 5), ServerBuckets(overall=RateLimiter(0.1))

        async def ask() -> None:
            with anyio.CancelScope():
                await service.ask(buckets)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(victim, ask)
            group.start_soon(ask)
            await anyio.sleep(5.5)
            buckets.hold(3)
        assert service.refused == 0
        assert len(service.moments) >= 2
        now = buckets.statistics()
        assert (now.waiting, now.in_flight) == (0, 0)
        assert now.acquired + now.cancelled <= 3
        assert_quiescent(buckets)

    modes: list[Any] = ["checkpoint", "step"] + ["native"] * (backend == "asyncio")
    for mode in modes:
        for victim in injections(mode):
            run(main, victim, backend=backend)


def test_one_loop_after_another(backend: str) -> None:
    """What waited and was in flight in a loop that is over is forgotten; what is known stays."""
    buckets = ServerBuckets()
    said = {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset-After": "60"}
    left: list[Any] = []

    async def leave() -> None:
        async with buckets.take("r") as slot:
            slot.observe(said)
        call: Any = buckets.take("r").__aenter__()
        with anyio.move_on_after(0):
            await call
        async with anyio.create_task_group() as group:
            slot = buckets.take("r")
            await slot.__aenter__()
            left.append(slot)
            group.start_soon(Service(1, 1).ask, buckets)
            await settle()
            assert buckets.statistics().waiting == 1
            group.cancel_scope.cancel()

    async def come() -> None:
        assert buckets.statistics().in_flight == 1
        async with buckets.take("r") as slot:
            assert buckets.statistics().in_flight == 1
            left[0].observe(said)
            await left[0].__aexit__(None, None, None)
            assert slot.allowed
            assert buckets.statistics().in_flight == 1

    run(leave, backend=backend)
    run(come, backend=backend)


def test_a_loop_that_just_stops() -> None:
    """Who waited in it gives nothing back and wakes nobody when it is closed at last."""
    buckets = ServerBuckets()
    service = Service(5, 1)

    async def hold() -> None:
        async with buckets.take("r"):
            await service.ask(buckets)

    left = hold()
    leave_waiting(left, lambda: buckets.statistics().waiting)

    async def come() -> None:
        async with anyio.create_task_group() as group, buckets.take("r"):
            group.start_soon(service.ask, buckets)
            await settle()
            left.close()
            await settle()
            now = buckets.statistics()
            assert (now.in_flight, now.waiting) == (1, 1)

    run(come, backend="asyncio")
    assert len(service.moments) == 1


async def test_idle_buckets_make_room() -> None:
    """If none is idle, a new route is refused; one that was forgotten is unknown again."""
    buckets = ServerBuckets(max_buckets=2, name="api")
    said = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "5", "X-RateLimit-Bucket": "1"}
    async with buckets.take("a") as slot:
        slot.observe(said)
    async with buckets.take("b"):
        with pytest.raises(RateLimitError, match=r"^<ServerBuckets 'api': 2 buckets, 1 in flight"):
            await buckets.take("c").__aenter__()
    async with buckets.take("c"):
        assert anyio.current_time() == 0
    await anyio.sleep(5)
    for path in ("d", "e", "f"):
        async with buckets.take(path) as slot:
            slot.observe(said | {"X-RateLimit-Bucket": path})
        await anyio.sleep(5)
    now = buckets.statistics()
    assert (now.buckets, now.forgotten, now.rejected) == (2, 4, 1)


async def test_a_wait_that_the_deadline_would_end_is_refused_at_once() -> None:
    """Whoever waits at the end of the queue, too; one that may be over in time is waited out."""
    buckets = ServerBuckets()
    said = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "5", "X-RateLimit-Limit": "1"}
    async with buckets.take("r") as slot:
        slot.observe(said)

    async def take() -> None:
        async with buckets.take("r"):
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        await settle()
        message = r"^<ServerBuckets: .* cannot allow route='r' within the 3 s that are left"
        with pytest.raises(LimitTimeoutError, match=message) as caught:
            await Pipeline(Timeout(3)).run(take)
        assert (caught.value.retry_after, anyio.current_time()) == (5, 0)
        await Pipeline(Timeout(7.5)).run(take)
    assert anyio.current_time() == 7
    assert buckets.statistics().timed_out == 1


async def test_slots_are_entered_once() -> None:
    """And outside their block they change nothing."""
    buckets = ServerBuckets()
    slot = buckets.take("r")
    slot.observe({"Retry-After": "5"}, refused=True)
    async with slot:
        pass
    slot.observe({"Retry-After": "5"}, refused=True)
    with pytest.raises(
        RuntimeError, match=r"^<BucketSlot of <ServerBuckets: .* was entered before"
    ):
        await slot.__aenter__()
    async with buckets.take("r"):
        assert anyio.current_time() == 0


def test_misuse_is_refused() -> None:
    """With the value, the reason and the way out."""
    bad: Any = 5
    with pytest.raises(TypeError, match=r"^overall=5 is an int, not a rate limiter"):
        ServerBuckets(overall=bad)
    with pytest.raises(ValueError, match=r"^unknown=0 is less than 1"):
        ServerBuckets(unknown=0)
    with pytest.raises(ValueError, match=r"^max_buckets=0 is less than 1"):
        ServerBuckets(max_buckets=0)
    with pytest.raises(TypeError, match=r"^route=\[\] cannot be hashed"):
        ServerBuckets().take([])  # type: ignore[arg-type] # as said
    with pytest.raises(ValueError, match=r"^seconds=-1 is less than 0"):
        ServerBuckets().hold(-1)
    assert ServerBuckets(name="api").name == "api"
