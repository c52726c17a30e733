"""
The server side of a `TieredCache`: a value and a lease for each key, and the messages about them.

Promise: one process at a time has the lease of a key, and what it loads is stored only while it
still has the lease. A change of the value takes the lease away, so a load that began before the
change is never stored after it, and no generations have to be kept for keys without values. A lease
ends with its process, and not before its load has ended. A message about a key reaches every task
that had begun to read it before. A server that does not answer is called ever more rarely, and not
every caller waits for its timeout.
Cost: every operation is one script. While anything is loaded, one task in the store's block, and a
call for each load in every third of the lease. Nothing is kept for keys that nobody reads.
"""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import anyio

from mtaio._internal import clock
from mtaio.exceptions import StoreError
from mtaio.redis._outage import Backoff
from mtaio.redis._store import Script, start

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from typing import Self

    from mtaio.redis._store import Store

__all__ = [
    "ACQUIRE",
    "KEEP",
    "READ",
    "RENEW",
    "WRITE",
    "Breaker",
    "Confirmations",
    "FarTier",
    "Found",
    "Notice",
    "Queries",
    "Query",
    "Renewals",
]

T = TypeVar("T")

_CHANGED: Final = b"-"
"""Begins the message that a key was set or deleted; the key follows."""

_CONFIRM: Final = b"?"
"""Begins the same message if it is to be confirmed; two tokens and the key follow."""

_SETTLED: Final = b"+"
"""Begins the message that a load for which others wait is over; the key follows."""

_TOKEN: Final = 32
"""How many letters a token has."""

_PAUSES: Final = (0.1, 2.0)
"""Seconds for which a breaker leaves the server alone: the first time, and at most."""


# In all of them, KEYS are the value and the lease. A lease is the token of its holder, followed by
# a "+" when others wait for it. Milliseconds to live: -1 for ever, 0 not at all.

# ARGV: token, milliseconds of the lease, "1" if the value there is of no use.
# Returns: {value, milliseconds left}, or {nil, milliseconds that another has the lease}, or
# {nil, 0} to the new holder of the lease.
ACQUIRE: Final = Script("""
if ARGV[3] == '1' then redis.call('DEL', KEYS[1]) end
local value = redis.call('GET', KEYS[1])
if value then return {value, redis.call('PTTL', KEYS[1])} end
local held = redis.call('GET', KEYS[2])
if not held then
    redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
    return {false, 0}
end
if string.sub(held, -1) ~= '+' then redis.call('SET', KEYS[2], held .. '+', 'KEEPTTL') end
return {false, math.max(1, redis.call('PTTL', KEYS[2]))}
""")

# Returns: {value, milliseconds left}, or nil.
READ: Final = Script("""
local value = redis.call('GET', KEYS[1])
if value then return {value, redis.call('PTTL', KEYS[1])} end
return false
""")

# ARGV: token, value, milliseconds to live, channel, message. Gives the lease back.
# Returns: whether the lease was still there, and the value is stored.
KEEP: Final = Script("""
local held = redis.call('GET', KEYS[2])
if held ~= ARGV[1] and held ~= ARGV[1] .. '+' then return 0 end
redis.call('DEL', KEYS[2])
if ARGV[3] == '-1' then redis.call('SET', KEYS[1], ARGV[2])
elseif ARGV[3] ~= '0' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if held ~= ARGV[1] then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return 1
""")

# ARGV: token, milliseconds. Returns: whether the lease was still there.
RENEW: Final = Script("""
local held = redis.call('GET', KEYS[2])
if held ~= ARGV[1] and held ~= ARGV[1] .. '+' then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
""")

# ARGV: value, milliseconds to live, channel, message.
# Returns: whether there was a value, and how many processes receive the message.
WRITE: Final = Script("""
local there = redis.call('EXISTS', KEYS[1])
if ARGV[2] == '-1' then redis.call('SET', KEYS[1], ARGV[1])
elseif ARGV[2] ~= '0' then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else redis.call('DEL', KEYS[1]) end
redis.call('DEL', KEYS[2])
return {there, redis.call('PUBLISH', ARGV[3], ARGV[4])}
""")


class Found(NamedTuple):
    """A value on the server."""

    value: bytes
    seconds: float
    """Until it expires."""


class Notice(NamedTuple):
    """A message to all processes about a key."""

    key: str
    changed: bool
    """Whether the key was set or deleted; else a load for which others wait is over."""
    confirm: tuple[str, str] | None = None
    """The writer that waits for a confirmation, and the token that is the confirmation."""

    @classmethod
    def parse(cls, message: bytes) -> Self:
        """Return what a message says."""
        kind, text = message[:1], message[1:].decode(errors="replace")
        if kind == _CONFIRM:
            confirm = (text[:_TOKEN], text[_TOKEN : 2 * _TOKEN])
            return cls(text[2 * _TOKEN :], changed=True, confirm=confirm)
        return cls(text, changed=kind == _CHANGED)


class FarTier:
    """
    The keys of one namespace.

    Args:
        store: The server.
        namespace: The prefix of the keys.
        lease: Seconds for which a lease lasts unless it is renewed.
    """

    __slots__ = ("_lease", "_prefix", "_store", "channel")

    def __init__(self, store: Store, namespace: str, lease: float) -> None:
        self._store = store
        self._lease = _milliseconds(lease)
        self._prefix = f"mtaio:cache:{namespace}:{{:"
        self.channel: str = f"mtaio:cache:{namespace}"

    async def acquire(self, key: str, token: str, *, discard: bool = False) -> Found | float:
        """
        Return the value, or else take the lease of the key.

        Args:
            key: The key.
            token: Who takes the lease.
            discard: Whether to remove what is stored, because it cannot be decoded.

        Returns:
            The value; or the seconds for which another process still has the lease; or 0 if the
            lease is taken.
        """
        args = (token, self._lease, int(discard))
        value, left = await self._store.script(ACQUIRE, self._keys(key), args)
        return left / 1000 if value is None else _found(value, left)

    async def read(self, key: str) -> Found | None:
        """Return the value."""
        answer = await self._store.script(READ, self._keys(key))
        return None if answer is None else _found(*answer)

    async def keep(self, key: str, token: str, value: bytes, ttl: float) -> bool:
        """Store what was loaded and give the lease back; return whether it was still there."""
        args = (token, value, _milliseconds(ttl), self.channel, _SETTLED + key.encode())
        return bool(await self._store.script(KEEP, self._keys(key), args))

    async def release(self, key: str, token: str) -> None:
        """Give the lease back, if it is still there."""
        await self.keep(key, token, b"", 0)

    async def renew(self, key: str, token: str) -> None:
        """Extend the lease to its full time again, if it is still there."""
        await self._store.script(RENEW, self._keys(key), (token, self._lease))

    async def write(
        self,
        key: str,
        value: bytes,
        ttl: float,
        confirm: tuple[str, str] | None = None,
    ) -> tuple[bool, int]:
        """
        Set the value, or delete it with a ``ttl`` of 0, and tell all processes.

        Args:
            key: The key.
            value: What to set.
            ttl: Seconds until it expires.
            confirm: Who waits for confirmations, and the token that is one; see `Notice`.

        Returns:
            Whether there was a value, and how many processes receive the message.
        """
        kind = _CHANGED if confirm is None else _CONFIRM + "".join(confirm).encode()
        args = (value, _milliseconds(ttl), self.channel, kind + key.encode())
        there, heard_by = await self._store.script(WRITE, self._keys(key), args)
        return bool(there), heard_by

    async def confirm(self, writer: str, token: str) -> None:
        """Tell a writer that its change has been received."""
        await self._store.publish(self.reply_channel(writer), token)

    def reply_channel(self, writer: str) -> str:
        """Return the channel on which a writer receives confirmations."""
        return f"{self.channel}:{writer}"

    def _keys(self, key: str) -> tuple[str, str]:
        # The braces keep both in one slot of a cluster; the colon is there because {} would not.
        value = f"{self._prefix}{key}}}"
        return value, f"{value}:load"


def _found(value: Any, left: int) -> Found:
    return Found(value, math.inf if left < 0 else left / 1000)


def _milliseconds(seconds: float) -> int:
    if seconds == math.inf:
        return -1
    return math.ceil(min(seconds, 1e12) * 1000)


class Breaker:
    """
    Through which a server is called that is left alone for some time after it has failed.

    After a call without an answer, those within the next pause fail at once; then a single call
    finds out whether the server answers again. The pauses grow until it does.

    Args:
        store: The server.

    Attributes:
        server_failures: How many calls have failed; not those that were not made.
    """

    __slots__ = ("_failing", "_failure", "_pauses", "_retry_at", "_store", "server_failures")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pauses = Backoff(*_PAUSES)
        self._failing = False
        self._failure = ""
        self._retry_at = -math.inf
        self.server_failures = 0

    def is_open(self) -> bool:
        """Return whether a call would fail at once."""
        return clock.now() < self._retry_at

    def retry(self) -> None:
        """Let the next call find out whether the server answers."""
        self._retry_at = -math.inf

    def reset(self) -> None:
        """Forget what failed."""
        self._failing = False
        self._failure = ""
        self._pauses.reset()
        self._retry_at = -math.inf

    async def call(self, call: Coroutine[Any, Any, T]) -> T:
        """
        Await a call of the server.

        Raises:
            StoreError: It failed, or was not made because one failed a moment ago.
        """
        now = clock.now()
        if now < self._retry_at:
            call.close()
            left = self._retry_at - now
            msg = f"{self._store.name} failed, and is asked again in {left:.1f} s: {self._failure}"
            raise StoreError(msg, server=self._store.name)
        if self._failing:  # the others wait for the answer to this one
            self._retry_at = now + self._store.timeout
        try:
            answer = await call
        except StoreError as error:
            self.server_failures += 1
            if error.refused:  # the server is there: a key of another type, no memory
                self.reset()
                raise
            self._failing = True
            self._failure = str(error)
            self._retry_at = clock.now() + self._pauses.next()
            raise
        if self._failing:
            self.reset()
        return answer


class Renewals:
    """
    The leases of the keys that this process loads, renewed for as long as the loads take.

    Args:
        store: In whose block the leases are renewed.
        far: Where they are.
        lease: Seconds for which one lasts.
    """

    # Invariant: _running says whether the task _run has been started and has not ended.
    __slots__ = ("_far", "_keys", "_lease", "_running", "_store")

    def __init__(self, store: Store, far: FarTier, lease: float) -> None:
        self._store = store
        self._far = far
        self._lease = lease
        self._keys: dict[str, str] = {}
        self._running = False

    @contextmanager
    def renewing(self, key: str, token: str) -> Generator[None]:
        """Renew the lease of a key while the block lasts."""
        if not self._running:
            start(self._store, self._run)
            self._running = True
        self._keys[token] = key
        try:
            yield
        finally:
            self._keys.pop(token, None)

    def clear(self) -> None:
        """Forget every lease, and the task: the store's block is over."""
        self._keys.clear()
        self._keys = {}
        self._running = False

    async def _run(self) -> None:
        keys = self._keys
        try:
            while keys:
                await anyio.sleep(self._lease / 3)
                for token, key in [*keys.items()]:
                    with suppress(StoreError):
                        await self._far.renew(key, token)
        finally:
            if keys is self._keys:  # else another task has been started since
                self._running = False


class Query:
    """
    A task that reads a key from the server, in a ``with`` block.

    Attributes:
        outdated: Whether the key was changed since the block began, so that the answer may be old.
    """

    __slots__ = ("_key", "_message", "_queries", "outdated")

    def __init__(self, queries: Queries, key: str) -> None:
        self._queries = queries
        self._key = key
        self._message: anyio.Event | None = None
        self.outdated = False

    def __enter__(self) -> Self:
        self._queries.by_key.setdefault(self._key, set()).add(self)
        return self

    def __exit__(self, *_: object) -> None:
        by_key = self._queries.by_key
        queries = by_key[self._key]
        queries.discard(self)
        if not queries:
            del by_key[self._key]

    def next_message(self) -> anyio.Event:
        """Return an event that the next message about the key sets, also before it is awaited."""
        self._message = message = anyio.Event()
        return message

    def wake(self) -> None:
        """Set the event."""
        if self._message is not None:
            self._message.set()


class Queries:
    """All tasks of this process that read keys from the server, by their keys."""

    __slots__ = ("by_key",)

    def __init__(self) -> None:
        self.by_key: dict[str, set[Query]] = {}

    def settled(self, key: str) -> None:
        """Wake the tasks that wait for a key: the load of another process is over."""
        for query in self.by_key.get(key, ()):
            query.wake()

    def changed(self, key: str) -> None:
        """Let the tasks that read a key know that it was changed, and wake them."""
        for query in self.by_key.get(key, ()):
            query.outdated = True
            query.wake()

    def all_changed(self) -> None:
        """Treat every key that is being read as changed."""
        for key in self.by_key:
            self.changed(key)


class Answers:
    """
    The confirmations of one change, each by another process.

    Attributes:
        count: How many processes have confirmed it.
    """

    __slots__ = ("_more", "count")

    def __init__(self) -> None:
        self.count = 0
        self._more = anyio.Event()

    def add(self) -> None:
        """Count one more."""
        self.count += 1
        self._more.set()
        self._more = anyio.Event()

    async def wait(self, count: int) -> None:
        """Wait until there are ``count``."""
        while self.count < count:
            await self._more.wait()


class Confirmations:
    """
    The changes whose confirmations are waited for, by their tokens.

    A confirmation that comes before it is waited for counts; one that comes too late does nothing.
    """

    __slots__ = ("_expected",)

    def __init__(self) -> None:
        self._expected: dict[str, Answers] = {}

    @contextmanager
    def expect(self, token: str) -> Generator[Answers]:
        """Count the answers to a change while the block lasts."""
        self._expected[token] = answers = Answers()
        try:
            yield answers
        finally:
            del self._expected[token]

    def note(self, token: str) -> None:
        """Count an answer."""
        answers = self._expected.get(token)
        if answers is not None:
            answers.add()
