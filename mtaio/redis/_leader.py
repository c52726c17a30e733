"""
Which of several processes leads: a slot of which there is one, held for as long as may be.

Promise: at most one process leads, by the server's clock. One that cannot renew its lease cancels
what it does as the leader before the server lets another lead. One that leaves lets another lead at
once. No tick of a schedule is claimed twice, and none by a process after a later one has begun.
Cost: that of a `RedisConcurrencyLimiter` with one slot: three calls in each ``ttl``. A tick is a
call.
What a process that was stopped can still do, and what its token is for: docs/en/design/redis.md.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import getLogger
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

import anyio

from mtaio._internal import checks
from mtaio._internal.block import Blocks, OwnedBlock
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.statistics import COUNTER, GAUGE
from mtaio.exceptions import LeaseLostError
from mtaio.redis._concurrency import LEASE, RedisConcurrencyLimiter
from mtaio.redis._store import Argument, Script, Store, check_key, start

if TYPE_CHECKING:
    from mtaio.redis._lease import Lease

__all__ = ["CLAIM", "LeaderTerm", "RedisLeader", "RedisLeaderStatistics"]

_FAR: Final = 10_800
"""Seconds: a tick that lies so far ahead of the server's clock was claimed by a wrong clock."""

_KEPT: Final = 400 * 86_400_000
"""Milliseconds for which the last ticks are kept: longer than from one year's tick to the next."""

# KEYS: a hash with the last tick of each schedule, and the token of the last term that looked.
# ARGV: the schedule; the token; the tick, or "" to look; how far ahead is too far; how long to keep
# it all. Returns: looking, the last tick or nil; otherwise whether the tick is claimed.
CLAIM: Final = Script("""
local state, name, token, tick = KEYS[1], 'tick:' .. ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HMGET', state, 'token', name)
local last = known[2]
if last and tonumber(last) > redis.call('TIME')[1] + ARGV[4] then last = false end
if tonumber(token) < tonumber(known[1] or '0') then
  if tick == '' then return last end
  return 0
end
redis.call('HSET', state, 'token', token)
redis.call('PEXPIRE', state, ARGV[5])
if tick == '' then return last end
if last and tonumber(tick) <= tonumber(last) then return 0 end
redis.call('HSET', state, name, tick)
return 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisLeaderStatistics:
    """The state of a `RedisLeader`, and what it has done in this process."""

    leading: bool = field(metadata=GAUGE)
    """Whether this process leads."""
    members: int = field(metadata=GAUGE)
    """Processes that led or waited at the server's last answer."""
    terms: int = field(metadata=COUNTER)
    """How often this process began to lead."""
    lost: int = field(metadata=COUNTER)
    """Terms that ended because the lease was lost."""
    server_calls: int = field(metadata=COUNTER)
    """Calls to the server, but those for ticks."""
    server_failures: int = field(metadata=COUNTER)
    """Calls to the server that failed."""


@final
class LeaderTerm:
    """The time for which a process leads; returned by ``with leader.hold()``."""

    __slots__ = ("_key", "_lease", "_store")

    def __init__(self, store: Store, key: str, lease: Lease) -> None:
        self._store = store
        self._key = key
        self._lease = lease

    def __repr__(self) -> str:
        return f"<LeaderTerm {self.token}{' (over)' if self.lost else ''}>"

    @property
    def token(self) -> int:
        """
        The fencing token, a number that increases with each term of any process.

        Send it along with what you write, and let the database refuse tokens lower than the highest
        it has seen: a process that was suspended may write before it notices that another one
        leads.
        """
        return self._lease.token

    @property
    def lost(self) -> bool:
        """
        Whether the lease was lost.

        Not a checkpoint; the server is not asked.
        """
        return self._lease.lost

    async def last_tick(self, schedule: str) -> float | None:
        """
        Return the last tick that any process has claimed; None if there is none.

        From then on, no earlier term can claim one. A checkpoint.

        Raises:
            StoreError: The server cannot be reached, or refused.
        """
        answer = await self._claim(schedule, "")
        return None if answer is None else float(answer)

    async def claim_tick(self, schedule: str, tick: float) -> bool:
        """
        Claim a tick of a schedule, and return whether this process may make its run.

        A checkpoint. If it is cancelled or raises, the tick may be claimed, and no run is made.

        Args:
            schedule: Name of the schedule, the same in all processes.
            tick: When the run was due, in seconds since 1970, the same in all processes.

        Raises:
            StoreError: The server cannot be reached, or refused.
        """
        return bool(await self._claim(schedule, repr(tick))) and not self.lost

    async def _claim(self, schedule: str, tick: str) -> str | bytes | int | None:
        arguments: list[Argument] = [schedule, self.token, tick, _FAR, _KEPT]
        answer: str | bytes | int | None = await self._store.script(CLAIM, [self._key], arguments)
        return answer


@final
@uncopied
class RedisLeader:
    """
    Elects one of several processes as the leader, with a lease that a server keeps.

    Within ``async with leader:``, a process is a candidate; ``every(..., leader=leader)`` makes
    runs only in the process that leads. If the leader dies, another process leads after ``ttl``
    seconds; if it leaves the block, at once. While the server is down, no process leads.

    A leader that cannot renew its lease for nine tenths of ``ttl`` stops leading: what runs in its
    `hold` is cancelled before another process can lead. A process that is suspended (SIGSTOP, a
    paused container), or whose event loop is blocked, cannot do that; when it continues, it may
    take a step before the cancellation arrives. What must not happen twice has to be guarded by the
    `token` where it is written.

    It can be created anywhere, and is entered and used inside the block of its store.

    Args:
        store: The server.
        key: Name of the election: processes with the same key on the same server elect one of them.
        ttl: Seconds without a sign of life after which another process leads, the same in every
            process. It must be longer than any pause of the event loop, the process or the
            connection that a leader should survive.
        name: Name shown in messages and metrics. Default: ``key``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``ttl`` is not between 0.01 and 31,536,000 (a year), or ``key`` is empty.

    Example:
        ```python
        import anyio

        from mtaio import TaskExecutor
        from mtaio.redis import RedisLeader, RedisStore

        store = RedisStore("redis://127.0.0.1:6379/0")
        leader = RedisLeader(store, "reports")


        async def report() -> None:
            print("one of all processes")


        async def main() -> None:
            async with store, leader, TaskExecutor() as executor:
                executor.every(60, report, leader=leader)
                await anyio.sleep(1)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants, all of the event loop in which it is entered:
    # - the task _campaign holds the lease, and _lease is there from when it has it until it gives
    #   it up; _elected is set meanwhile;
    # - _scopes are those of the blocks that run while this process leads.
    __slots__ = (
        "__weakref__",
        "_begun",
        "_blocks",
        "_campaigning",
        "_elected",
        "_ended",
        "_lease",
        "_limiter",
        "_scopes",
        "_store",
        "_ticks",
    )

    def __init__(
        self, store: Store, key: str, *, ttl: float = 10.0, name: str | None = None
    ) -> None:
        check_key(key)
        way_out = "Pass the seconds of silence after which another process leads."
        checks.between("ttl", ttl, *LEASE, way_out=way_out)
        self._limiter = RedisConcurrencyLimiter(
            store,
            f"leader:{key}",
            1,
            lease=ttl,
            on_failure="wait",
            name=key if name is None else name,
        )
        self._store = store
        self._ticks = f"mtaio:ticks:{{leader:{key}}}"
        self._blocks: Blocks[OwnedBlock] = Blocks()
        self._lease: Lease | None = None
        self._elected: anyio.Event
        self._ended: anyio.Event
        self._campaigning: anyio.CancelScope
        self._begun = False
        self._scopes: set[anyio.CancelScope] = set()

    def __repr__(self) -> str:
        state = "leads" if self.is_leader else "does not lead"
        return f"<RedisLeader {self.name!r} {state}, at {self._store.name}>"

    @property
    def name(self) -> str:
        """Name shown in messages and metrics."""
        return self._limiter.name

    @property
    def ttl(self) -> float:
        """Seconds without a sign of life after which another process leads."""
        return self._limiter.lease

    @property
    def is_leader(self) -> bool:
        """
        Whether this process leads, as far as it knows.

        Not a checkpoint; the server is not asked.
        """
        return self._lease is not None and not self._lease.lost

    @property
    def token(self) -> int | None:
        """The fencing token of this process's term; None without one. See `LeaderTerm.token`."""
        lease = self._lease
        return None if lease is None or lease.lost else lease.token

    async def __aenter__(self) -> Self:
        """
        Become a candidate, without waiting for the election.

        Not a checkpoint.

        Raises:
            RuntimeError: The leader is entered already, or its store is not entered.
        """
        self._blocks.vacate(self)
        block = OwnedBlock(self)
        self._elected, self._ended = anyio.Event(), anyio.Event()
        self._campaigning = anyio.CancelScope()
        self._begun, self._lease, self._scopes = False, None, set()
        start(self._store, self._campaign)
        self._blocks.current = block
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop being a candidate; blocks of `hold` are cancelled, and another leads at once."""
        block = self._blocks.leaving(exc)
        if block is None:
            return
        self._blocks.current = None
        if block.is_over():
            return
        self._campaigning.cancel()
        if self._begun:
            with anyio.CancelScope(shield=True):
                await self._ended.wait()

    async def wait_leader(self) -> None:
        """
        Wait until this process leads.

        A checkpoint. If it is cancelled, nothing is changed.

        Raises:
            RuntimeError: The leader is not entered, or was entered in another event loop.
        """
        self._blocks.entered(self, "wait_leader()")
        await checkpoint()
        while not self.is_leader:
            await self._elected.wait()

    @contextmanager
    def hold(self) -> Generator[LeaderTerm]:
        """
        Return a block that is cancelled when this process stops leading.

        Not a checkpoint.

        Raises:
            LeaseLostError: This process does not lead when the block is entered, or stopped leading
                before it ended; if the block itself fails, its error is raised instead.
            RuntimeError: As for `wait_leader`.
        """
        self._blocks.entered(self, "hold()")
        lease = self._lease
        if lease is None or lease.lost:
            msg = f"{self!r}: hold() is for the process that leads. Await wait_leader() first."
            raise LeaseLostError(msg, token=0, name=self.name)
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield LeaderTerm(self._store, self._ticks, lease)
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught or lease.lost:
            msg = (
                f"{self!r}: its term was over before the block was, so another process may have "
                f"led. Do the work in the next term, or pass a longer ttl=."
            )
            raise LeaseLostError(msg, token=lease.token, name=self.name)

    def statistics(self) -> RedisLeaderStatistics:
        """
        Return a snapshot of this process.

        Not a checkpoint. It can be called from any thread.
        """
        counts = self._limiter.statistics()
        return RedisLeaderStatistics(
            leading=self.is_leader,
            members=counts.members,
            terms=counts.acquired,
            lost=counts.lost,
            server_calls=counts.server_calls,
            server_failures=counts.server_failures,
        )

    async def _campaign(self) -> None:
        """Get the lease, keep it, and get it again, until the block is left."""
        self._begun = True
        try:
            with self._campaigning:
                while True:
                    await self._lead()
        finally:
            self._ended.set()

    async def _lead(self) -> None:
        """Wait for the lease, and hold it until it is lost."""
        try:
            async with self._limiter.hold() as lease:
                self._lease = lease
                self._elected.set()
                getLogger("mtaio.redis").info("%r", self)
                try:
                    await anyio.sleep_forever()
                finally:
                    self._elected = anyio.Event()
                    self._lease = None
                    for scope in [*self._scopes]:
                        scope.cancel()
        except LeaseLostError as error:
            getLogger("mtaio.redis").warning("%r: %s", self, error)
