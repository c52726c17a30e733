"""`RedisLeader` on the virtual clock, with a server in memory."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal import clock
from mtaio.core import TaskExecutor
from mtaio.exceptions import LeaseLostError, StoreError
from mtaio.redis import LeaderTerm, RedisLeader
from mtaio.testing import Victim, explore, run
from tests.redis.leading import Elections

if TYPE_CHECKING:
    from mtaio.types import Leader, Term

LONGEST = 0.1
"""Seconds of a few calls to the server."""


class Process:
    """One of several that make runs while they lead."""

    def __init__(self, store: Elections, ttl: float = 3.0) -> None:
        self.leader = RedisLeader(store, "key", ttl=ttl)
        self.runs: list[float] = []
        self.cancelled = 0
        self.scope = anyio.CancelScope()

    async def work(self) -> None:
        """Take half a second."""
        assert self.leader.is_leader
        self.runs.append(anyio.current_time())
        try:
            await anyio.sleep(0.5)
        except BaseException:
            self.cancelled += 1
            raise

    async def live(self) -> None:
        """Stand for election until cancelled."""
        with self.scope:
            async with self.leader, TaskExecutor() as executor:
                executor.every(1, self.work, name="work", leader=self.leader)
                await anyio.sleep_forever()


async def test_one_leads_and_another_takes_over() -> None:
    """At once when the first leaves; no tick is run twice, and none is left out."""
    async with Elections() as store, anyio.create_task_group() as group:
        processes = [Process(store) for _ in range(3)]
        for process in processes:
            group.start_soon(process.live)
        for _ in range(2):
            await anyio.sleep(5.2)
            (first,) = [each for each in processes if each.leader.is_leader]
            processes.remove(first)
            first.scope.cancel()
            moment = anyio.current_time()
            await anyio.sleep(LONGEST)
            (second,) = [each for each in processes if each.leader.is_leader]
            assert not second.runs  # the tick that the first began is not made again
            await anyio.sleep(1)
            assert second.runs[0] - moment < 1
            assert first.runs[-1] < moment
            assert first.cancelled == 1
        group.cancel_scope.cancel()
    assert store.most == 1


async def test_token_and_statistics() -> None:
    """The token grows from term to term, and is there in the term alone."""
    async with Elections() as store:
        leader = RedisLeader(store, "key", ttl=2, name="reports")
        tokens: list[int | None] = []
        for _ in range(2):
            assert leader.token is None
            async with leader:
                assert not leader.is_leader
                assert "does not lead" in repr(leader)
                await leader.wait_leader()
                assert leader.statistics().leading
                assert "leads" in repr(leader)
                with leader.hold() as term:
                    assert repr(term) == f"<LeaderTerm {leader.token}>"
                    assert term.token == leader.token
                tokens.append(leader.token)
            assert not leader.is_leader
        assert tokens[0] is not None
        assert tokens[1] is not None
        assert 0 < tokens[0] < tokens[1]
        assert (leader.name, leader.ttl) == ("reports", 2)
        found = leader.statistics()
        assert (found.terms, found.lost, found.server_failures) == (2, 0, 0)


async def test_server_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """The leader stops before its lease is over; when the server is back, one leads again."""
    async with Elections(timeout=0.5) as store, anyio.create_task_group() as group:
        processes = [Process(store) for _ in range(2)]
        for process in processes:
            group.start_soon(process.live)
        await anyio.sleep(4.25)
        (first,) = [each for each in processes if each.leader.is_leader]
        store.fail()
        moment = anyio.current_time()
        await anyio.sleep(3)
        assert not any(each.leader.is_leader for each in processes)
        assert first.runs[-1] <= moment  # a tick that cannot be claimed is not run
        await anyio.sleep(60)
        assert sum(len(each.runs) for each in processes) == len(first.runs)
        store.recover()
        await anyio.sleep(5)
        (leading,) = [each for each in processes if each.leader.is_leader]
        assert leading.runs[-1] > moment + 60
        assert first.leader.statistics().lost == 1
        group.cancel_scope.cancel()
    assert "its leader failed" in caplog.text or "stops here" in caplog.text
    assert store.most == 1


async def test_block_of_a_term_that_is_over() -> None:
    """It is cancelled, and raises; an error of its own comes first; outside, nobody leads."""
    async with Elections(timeout=0.5) as store:
        leader = RedisLeader(store, "key", ttl=2)
        with pytest.raises(RuntimeError, match=r"is not entered, and wait_leader\(\)"):
            await leader.wait_leader()
        async with leader:
            no = pytest.raises(LeaseLostError, match=r"does not lead.*Await wait_leader\(\)")
            with no, leader.hold():
                raise NotImplementedError
            await leader.wait_leader()
            began = anyio.current_time()
            over = pytest.raises(LeaseLostError, match="its term was over before")
            with over as caught, leader.hold() as term:
                store.fail()
                await anyio.sleep_forever()
            assert 1 < anyio.current_time() - began < 2
            assert term.lost
            assert "(over)" in repr(term)
            assert caught.value.token == term.token
            assert not await _claims(store, term)
            store.recover()
            await leader.wait_leader()
            for error in (ZeroDivisionError, LeaseLostError):
                with pytest.raises(error), leader.hold():  # noqa: PT012 - too late to be cancelled
                    store.fail()
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(2)
                    if error is ZeroDivisionError:
                        raise error
                store.recover()
                await leader.wait_leader()


async def _claims(store: Elections, term: LeaderTerm) -> bool:
    store.recover()
    try:
        return await term.claim_tick("work", clock.wall())
    finally:
        store.fail()


async def test_leaving_ends_what_it_holds() -> None:
    """A block of `hold` in another task ends with the leader's."""
    async with Elections() as store, anyio.create_task_group() as group:
        leader = RedisLeader(store, "key")
        ended: list[str] = []

        async def lead() -> None:
            try:
                with leader.hold():
                    await anyio.sleep_forever()
            except LeaseLostError as error:
                ended.append(str(error))

        async with leader:
            await leader.wait_leader()
            group.start_soon(lead)
            await anyio.sleep(1)
        await anyio.sleep(1)
        assert len(ended) == 1
        assert store.members == {}


async def test_ticks() -> None:
    """An earlier term claims nothing once a later one has looked; wrong clocks claim nothing."""
    async with Elections() as store:
        leader = RedisLeader(store, "key")
        terms: list[Term] = []
        for _ in range(2):
            async with leader:
                await leader.wait_leader()
                with leader.hold() as term:
                    terms.append(LeaderTerm(store, term._key, term._lease))
                    if len(terms) == 1:
                        assert await term.last_tick("work") is None
                        assert await term.claim_tick("work", 946_684_800.25)
                        assert not await term.claim_tick("work", 946_684_800.25)
                        assert not await term.claim_tick("work", 946_684_799.0)
                        assert await term.claim_tick("other", 946_684_799.0)
                    else:
                        assert await term.last_tick("work") == 946_684_800.25
                        assert not await terms[0].claim_tick("work", 946_684_801.0)
                        assert await terms[0].last_tick("work") == 946_684_800.25
                        assert await term.claim_tick("work", 4e9)
                        assert await term.last_tick("work") is None
                        assert await term.claim_tick("work", 946_684_802.0)


async def test_left_in_the_wrong_order() -> None:
    """An executor around its leader says so when the leader has been left."""
    async with Elections() as store:
        leader = RedisLeader(store, "key")
        wrong = pytest.raises(RuntimeError, match=r"is not entered, and wait_leader\(\) works only")
        with wrong:
            async with TaskExecutor() as executor:
                async with leader:
                    executor.every(1, anyio.sleep, 0, leader=leader)
                    await anyio.sleep(1)
                await anyio.sleep_forever()


async def test_store_that_is_left_first() -> None:
    """The leader's block can be left after it; nobody leads."""
    store = Elections()
    leader = RedisLeader(store, "key")
    async with store:
        await leader.__aenter__()
        await leader.wait_leader()
    assert not leader.is_leader
    await leader.__aexit__(None, None, None)
    await leader.__aexit__(None, None, None)


def test_one_loop_after_another(backend: str) -> None:
    """Also if the loop before ended without leaving it; leaving it then changes nothing."""
    store = Elections()
    leader = RedisLeader(store, "key", ttl=1)

    async def main() -> None:
        async with store:
            await leader.__aexit__(None, None, None)
            await leader.__aenter__()
            await leader.wait_leader()
            assert leader.is_leader

    for _ in range(2):
        run(main, backend=backend)
        store.forget()


async def test_entered_and_left_at_once() -> None:
    """A campaign that has not begun ends as it begins."""
    async with Elections() as store:
        async with RedisLeader(store, "key"):
            pass
        await anyio.sleep(1)
        assert store.members == {}


def test_refusals() -> None:
    """Arguments are refused as those of the limiter; a leader is not copied."""
    store: Any = Elections()
    make: Any = RedisLeader
    with pytest.raises(TypeError, match=r"^store=3 is"):
        make(3, "key")
    with pytest.raises(ValueError, match=r"^key='' is empty"):
        make(store, "")
    with pytest.raises(ValueError, match=r"^ttl=0 is not"):
        make(store, "key", ttl=0)
    leader: Leader = RedisLeader(store, "key")
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        pickle.dumps(leader)


@explore(seeds=10, exhaustive=1, inject=("checkpoint", "step", "native"))
async def test_struck_anywhere(victim: Victim) -> None:
    """A process that is struck between any two steps leaves the lead to the other."""
    async with Elections(latency=0.002) as store, anyio.create_task_group() as group:
        first, second = Process(store), Process(store)

        async def struck() -> None:
            with anyio.move_on_after(1.3):
                await victim(first.live)

        group.start_soon(struck)
        group.start_soon(second.live)
        await anyio.sleep(8)
        assert second.leader.is_leader
        assert len(second.runs) >= 3
        assert not set(first.runs) & set(second.runs)
        group.cancel_scope.cancel()
    assert store.most == 1


def test_errors_of_the_server_reach_the_caller(backend: str) -> None:
    """Of ticks alone; the campaign goes on."""

    async def main() -> None:
        async with Elections(timeout=0.1) as store, RedisLeader(store, "key") as leader:
            await leader.wait_leader()
            with leader.hold() as term:
                store.fail()
                with pytest.raises(StoreError):
                    await term.last_tick("work")
                store.recover()
                assert await term.last_tick("work") is None

    run(main, backend=backend)
