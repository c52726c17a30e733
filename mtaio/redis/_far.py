"""
The server side of a `TieredCache`: a value and a lease for each key, and the messages about them.

Promise: one process at a time has the lease of a key, and what it loads is stored only while it
still has the lease. A change of the value takes the lease away, so a load that began before the
change is never stored after it, and no generations have to be kept for keys without values. A lease
ends with its process, and not before its load has ended. A message about a key reaches every task
that had begun to read it before. A server that does not answer is called ever more rarely, and not
every caller waits for its timeout.

A tag is a record with a random token, and a value that carries the tag has the token before it. To
invalidate the tag is to delete the record: then no value carries what is there. So a value that was
loaded before and is stored afterwards is dead as soon as it is there, and a record that the server
has lost or evicted outdates values in the same way, and never brings one back.

Cost: every operation is one script, also for many keys, up to `_MOST` of them; on a cluster one for
each slot, `_AT_ONCE` at a time. Values with tags take one more, which reads the tokens. While
anything is loaded, one task in the store's block, and a call for each load in every third of the
lease. Nothing is kept for keys that nobody reads, and a tag is forgotten after its last value.
"""

from __future__ import annotations

import json
import math
from binascii import crc_hqx
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from uuid import uuid4

import anyio

from mtaio._internal import clock
from mtaio.exceptions import StoreError
from mtaio.redis._outage import Backoff
from mtaio.redis._store import Script, start

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Mapping
    from typing import Self

    from mtaio.redis._store import Argument, Store

__all__ = [
    "ACQUIRE",
    "DROP",
    "INCREMENT",
    "KEEP",
    "READ",
    "RENEW",
    "TAGS",
    "TOUCH",
    "WRITE",
    "Breaker",
    "Confirmations",
    "FarTier",
    "Found",
    "Leased",
    "Notice",
    "Queries",
    "Query",
    "Renewals",
]

T = TypeVar("T")

_CHANGED: Final = b"-"
"""Begins the message that keys were set or deleted; they follow, with a NUL between them."""

_TAGGED: Final = b"#"
"""Begins the message that a tag was invalidated; the tag follows."""

_CLEARED: Final = b"*"
"""The message that all keys were deleted; so is any that is not known here."""

_CONFIRM: Final = b"!"
"""Begins any of these if it is to be confirmed; two tokens come before it."""

_SETTLED: Final = b"+"
"""Begins the message that a load for which others wait is over; the key follows."""

_TOKEN: Final = 32
"""How many letters a token has."""

_PAUSES: Final = (0.1, 2.0)
"""Seconds for which a breaker leaves the server alone: the first time, and at most."""

_MOST: Final = 1000
"""How many keys one script has at most: the server does nothing else meanwhile."""

_AT_ONCE: Final = 100
"""How many scripts for the slots of a cluster run at the same time."""

_SPARE: Final = 3600.0
"""Seconds for which a tag is kept longer than a value: a load begins before its value's time."""


_MARK: Final = b"\0#"
"""Begins a value with tags; these follow, as JSON, and after a line break the value."""

# In all of them, KEYS are the value and the lease, unless they say something else. A lease is the
# token of its holder, followed by a "+" when others wait for it. Milliseconds to live: -1 for ever,
# 0 not at all. The tags of a value are all that comes before it.

_TAGS_OF: Final = """
local function tags_of(value)
    if string.sub(value, 1, 2) ~= '\\0#' then return '' end
    return string.sub(value, 1, string.find(value, '\\n', 1, true))
end
"""

# ARGV: token, milliseconds of the lease, what makes the value there of no use: its tags, or "1".
# Returns: {value, milliseconds left}, or {nil, milliseconds that another has the lease}, or
# {nil, 0} to the new holder of the lease.
ACQUIRE: Final = Script("""
local value = redis.call('GET', KEYS[1])
local tags = ARGV[3]
if tags == '1' or value and tags ~= '' and string.sub(value, 1, #tags) == tags then
    redis.call('DEL', KEYS[1])
    value = false
end
if value then return {value, redis.call('PTTL', KEYS[1])} end
local held = redis.call('GET', KEYS[2])
if not held then
    redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
    return {false, 0}
end
if string.sub(held, -1) ~= '+' then redis.call('SET', KEYS[2], held .. '+', 'KEEPTTL') end
return {false, math.max(1, redis.call('PTTL', KEYS[2]))}
""")

# KEYS: values. Returns for each: {value, milliseconds left}, or nil.
READ: Final = Script("""
local found = {}
for i, key in ipairs(KEYS) do
    local value = redis.call('GET', key)
    found[i] = value and {value, redis.call('PTTL', key)}
end
return found
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

# KEYS: values and leases, in turns. ARGV: channel, message, milliseconds to live, and each value,
# unless they are deleted.
# Returns: how many processes receive the message, and for each key 0 if there was no value, else
# its tags.
WRITE: Final = Script(
    _TAGS_OF
    + """
local answer = {0}
for i = 1, #KEYS, 2 do
    local value = redis.call('GET', KEYS[i])
    answer[#answer + 1] = value and tags_of(value) or 0
    local new = ARGV[3 + (i + 1) / 2]
    if ARGV[3] == '-1' then redis.call('SET', KEYS[i], new)
    elseif ARGV[3] ~= '0' then redis.call('SET', KEYS[i], new, 'PX', ARGV[3])
    else redis.call('DEL', KEYS[i]) end
    redis.call('DEL', KEYS[i + 1])
end
answer[1] = redis.call('PUBLISH', ARGV[1], ARGV[2])
return answer
"""
)

# The next two begin like this: {nil, tags} asks whether the tags of a value are those of now. ARGV:
# the tags that were asked for, or "", and then whether they are: 1 or 0.
_ASK: Final = (
    _TAGS_OF
    + """
local value = redis.call('GET', KEYS[1])
local tags = value and tags_of(value) or ''
if tags ~= '' and tags ~= ARGV[1] then return {false, tags} end
if tags ~= '' and ARGV[2] == '0' then
    redis.call('DEL', KEYS[1])
    value, tags = false, ''
end
"""
)

# ARGV: two for tags, milliseconds to live, channel, message.
# Returns: {what it was: 0 for no value, 1 for one that now lives longer, 2 for not as long}. The
# message is sent in the last case: others may keep a value for longer than it lives.
TOUCH: Final = Script(
    _ASK
    + """
if not value then return {0} end
local left = redis.call('PTTL', KEYS[1])
if ARGV[3] == '-1' then redis.call('PERSIST', KEYS[1])
else redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
if ARGV[3] == '-1' or left >= 0 and left <= tonumber(ARGV[3]) then return {1} end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {2}
"""
)

# ARGV: two for tags, by how much, milliseconds to live for a value that was not there, channel,
# message.
# Returns: {the value, how many processes receive the message}, or {error}. It is counted by the
# server, which takes the tags for no number: Lua's own numbers have 53 bits.
INCREMENT: Final = Script(
    _ASK
    + """
local function set(new) redis.call('SET', KEYS[1], new, 'KEEPTTL') end
if tags ~= '' then set(string.sub(value, #tags + 1)) end
local made = redis.pcall('INCRBY', KEYS[1], ARGV[3])
if type(made) == 'table' then
    if tags ~= '' then set(value) end
    return {made.err}
end
made = redis.call('GET', KEYS[1])
if tags ~= '' then set(tags .. made) end
if not value and ARGV[4] ~= '-1' then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
redis.call('DEL', KEYS[2])
return {made, redis.call('PUBLISH', ARGV[5], ARGV[6])}
"""
)

# KEYS: tags. ARGV: the token of those that are not there, or ""; the milliseconds that each has to
# live at least, 0 to leave that as it is.
# Returns: the token of each, or nil.
TAGS: Final = Script("""
local tokens = {}
for i, key in ipairs(KEYS) do
    local token = redis.call('GET', key)
    local left = redis.call('PTTL', key)
    local short = left ~= -1 and (ARGV[2] == '-1' or left < tonumber(ARGV[2]))
    if short and token then
        if ARGV[2] == '-1' then redis.call('PERSIST', key)
        else redis.call('PEXPIRE', key, ARGV[2]) end
    elseif not token and ARGV[1] ~= '' then
        token = ARGV[1]
        redis.call('SET', key, token)
        if ARGV[2] ~= '-1' then redis.call('PEXPIRE', key, ARGV[2]) end
    end
    tokens[i] = token
end
return tokens
""")

# KEYS: what is deleted. ARGV: channel, message or "".
# Returns: how many processes receive the message.
DROP: Final = Script("""
for _, key in ipairs(KEYS) do redis.call('DEL', key) end
if ARGV[2] == '' then return 0 end
return redis.call('PUBLISH', ARGV[1], ARGV[2])
""")


class Found(NamedTuple):
    """A value on the server."""

    value: bytes
    seconds: float
    """Until it expires."""
    tags: frozenset[str] = frozenset()
    """Those that it carries."""


class Leased(NamedTuple):
    """The lease of a key, and what `FarTier.keep` stores before the value."""

    tags: bytes


class Notice(NamedTuple):
    """A message to all processes."""

    changed: tuple[str, ...] = ()
    """The keys that were set or deleted."""
    tag: str | None = None
    """The tag that was invalidated."""
    cleared: bool = False
    """Whether all keys were deleted."""
    settled: str | None = None
    """The key whose load, for which others wait, is over."""
    confirm: tuple[str, str] | None = None
    """The writer that waits for a confirmation, and the token that is the confirmation."""

    @classmethod
    def parse(cls, message: bytes) -> Self:
        """Return what a message says."""
        kind, text = message[:1], message[1:].decode(errors="replace")
        if kind == _CONFIRM:
            confirm = (text[:_TOKEN], text[_TOKEN : 2 * _TOKEN])
            return cls.parse(message[1 + 2 * _TOKEN :])._replace(confirm=confirm)
        if kind == _CHANGED:
            return cls(changed=tuple(text.split("\0")))
        if kind == _SETTLED:
            return cls(settled=text)
        return cls(tag=text) if kind == _TAGGED else cls(cleared=True)


class FarTier:
    """
    The keys of one namespace.

    A change that is to be confirmed is given who waits for confirmations, and the token that is
    one: see `Notice`. It returns how many processes receive the message after what it returns.

    Args:
        store: The server.
        namespace: The prefix of the keys.
        lease: Seconds for which a lease lasts unless it is renewed.
    """

    __slots__ = ("_cluster", "_lease", "_prefix", "_store", "channel")

    def __init__(self, store: Store, namespace: str, lease: float) -> None:
        self._store = store
        self._cluster: bool = getattr(store, "cluster", False)
        self._lease = _milliseconds(lease)
        self._prefix = f"mtaio:cache:{namespace}:{{"
        self.channel: str = f"mtaio:cache:{namespace}"

    # Reading.

    async def acquire(
        self, key: str, token: str, tags: Collection[str], ttl: float, *, discard: bool
    ) -> Found | Leased | float:
        """
        Return the value, or else take the lease of the key.

        Args:
            key: The key.
            token: Who takes the lease.
            tags: Those that the value is going to carry if it is loaded.
            ttl: Seconds for which it will be kept then.
            discard: Whether to remove what is stored, because it cannot be decoded.

        Returns:
            The value, or the lease, or the seconds for which another process still has that.
        """
        no_use: bytes | str = "1" if discard else ""
        while True:
            args = (token, self._lease, no_use)
            stored, left = await self._store.script(ACQUIRE, self._keys(key), args)
            if stored is None:
                break
            found = _Stored.parse(stored, left)
            if not found.header or await self._live([found.header]):
                return found.found()
            no_use = found.header
        if left:
            seconds: float = left / 1000
            return seconds
        return Leased(await self._header(tags, ttl))  # read before the load begins

    async def read(self, keys: Collection[str]) -> dict[str, Found]:
        """Return the keys that have a value, with their values."""
        stored = {self._key(key): key for key in keys}

        async def read_some(some: list[str]) -> dict[str, _Stored]:
            answers = await self._store.script(READ, some)
            return {
                stored[each]: _Stored.parse(*answer)
                for each, answer in zip(some, answers, strict=True)
                if answer is not None
            }

        there: dict[str, _Stored] = {}
        for some in await self._each(stored, read_some):
            there |= some
        live = await self._live([each.header for each in there.values() if each.header])
        return {
            key: each.found()
            for key, each in there.items()
            if not each.header or each.header in live
        }

    # The lease.

    async def keep(self, key: str, token: str, value: bytes, tags: bytes, ttl: float) -> bool:
        """Store what was loaded and give the lease back; return whether it was still there."""
        message = _SETTLED + key.encode()
        args = (token, _joined(tags, value), _milliseconds(ttl), self.channel, message)
        return bool(await self._store.script(KEEP, self._keys(key), args))

    async def release(self, key: str, token: str) -> None:
        """Give the lease back, if it is still there."""
        await self.keep(key, token, b"", b"", 0)

    async def renew(self, key: str, token: str) -> None:
        """Extend the lease to its full time again, if it is still there."""
        await self._store.script(RENEW, self._keys(key), (token, self._lease))

    # Changing.

    async def write(
        self,
        values: Mapping[str, bytes],
        ttl: float,
        confirm: tuple[str, str] | None,
        tags: Collection[str] = (),
    ) -> tuple[None, int]:
        """Set the values, each with the same tags."""
        header = await self._header(tags, ttl)
        _, heard_by = await self._write(values, ttl, confirm, header)
        return None, heard_by

    async def delete(
        self, keys: Collection[str], confirm: tuple[str, str] | None
    ) -> tuple[int, int]:
        """Delete the values; return how many there were."""
        there, heard_by = await self._write(dict.fromkeys(keys, b""), 0, confirm, b"")
        live = await self._live([each for each in there if each])
        return sum(not each or each in live for each in there), heard_by

    async def _write(
        self,
        values: Mapping[str, bytes],
        ttl: float,
        confirm: tuple[str, str] | None,
        header: bytes,
    ) -> tuple[list[bytes], int]:
        """Return the tags of each value that there was."""
        stored = {self._key(key): key for key in values}

        async def write_some(some: list[str]) -> list[Any]:
            keys = [stored[each] for each in some]
            args: list[Argument] = [self.channel, _about(keys, confirm), _milliseconds(ttl)]
            if ttl:
                args += [_joined(header, values[key]) for key in keys]
            both = [each for key in keys for each in self._keys(key)]
            answer: list[Any] = await self._store.script(WRITE, both, args)
            return answer

        answers = await self._each(stored, write_some)
        there = [each for _, *some in answers for each in some if each != 0]
        return there, sum(heard_by for heard_by, *_ in answers)  # each message is confirmed

    async def touch(self, key: str, ttl: float) -> tuple[bool, bool]:
        """Restart the time of a value; return whether there is one, and whether it is shorter."""
        args = (_milliseconds(ttl), self.channel, _about([key], None))
        (found,) = await self._ask(TOUCH, key, args, ttl)
        return found > 0, found > 1

    async def increment(
        self, key: str, delta: int, ttl: float, confirm: tuple[str, str] | None
    ) -> tuple[int | str, int]:
        """Add to a value, and leave its time as it is; return it, or the reason why it cannot."""
        args = (delta, _milliseconds(ttl), self.channel, _about([key], confirm))
        made, *heard_by = await self._ask(INCREMENT, key, args)
        return (int(made), heard_by[0]) if heard_by else (made.decode(), 0)

    async def _ask(
        self, script: Script, key: str, args: tuple[Argument, ...], ttl: float = 0
    ) -> list[Any]:
        """Return the answer of a script that asks whether the tags of a value are those of now."""
        header, live = b"", 0
        while True:
            keys = self._keys(key)
            answer: list[Any] = await self._store.script(script, keys, (header, live, *args))
            if answer[0] is not None:
                return answer
            header = answer[1]
            live = len(await self._live([header], ttl))

    # Many keys that nobody has named.

    async def invalidate(self, tag: str, confirm: tuple[str, str] | None) -> tuple[None, int]:
        """Outdate all values that carry a tag."""
        args = (self.channel, _asking(confirm) + _TAGGED + tag.encode())
        return None, await self._store.script(DROP, [self._tag(tag)], args)

    async def clear(self, confirm: tuple[str, str] | None) -> tuple[None, int]:
        """
        Delete everything, in steps.

        First the leases: a load that has begun may not be stored, where the second pass has already
        been. What was stored before its lease was deleted is there when that begins, and is found.
        """
        prefix = "".join(rf"\{each}" if each in r"\*?[]^" else each for each in self._prefix)
        for pattern in (f"{prefix}*:load", f"{prefix}*"):
            cursor: object = None
            while True:
                cursor, found = await self._store.scan(pattern, cursor)
                await self._each([each.decode(errors="replace") for each in found], self._drop)
                if cursor is None:
                    break
        args = (self.channel, _asking(confirm) + _CLEARED)
        return None, await self._store.script(DROP, [self._tag("")], args)

    async def _drop(self, keys: list[str]) -> None:
        await self._store.script(DROP, keys, (self.channel, ""))

    async def confirm(self, writer: str, token: str) -> None:
        """Tell a writer that its change has been received."""
        await self._store.publish(self.reply_channel(writer), token)

    def reply_channel(self, writer: str) -> str:
        """Return the channel on which a writer receives confirmations."""
        return f"{self.channel}:{writer}"

    # Tags.

    async def _header(self, tags: Collection[str], ttl: float) -> bytes:
        """Return the tags that a value is stored with, and their tokens, which are made here."""
        if not tags or not ttl:
            return b""
        tokens = await self._tokens(tags, ttl, uuid4().hex)
        return _MARK + json.dumps(tokens, sort_keys=True).encode() + b"\n"

    async def _live(self, headers: Iterable[bytes], ttl: float = 0) -> set[bytes]:
        """Return those of the headers whose tags have not been invalidated since."""
        all_tags = {each: _tags(each) for each in headers}
        if not all_tags:
            return set()
        tokens = await self._tokens({tag for tags in all_tags.values() for tag in tags}, ttl, "")
        return {header for header, tags in all_tags.items() if tags.items() <= tokens.items()}

    async def _tokens(self, tags: Iterable[str], ttl: float, new: str) -> dict[str, str]:
        """Return the tags that are there, with their tokens; let them live on for a value's ttl."""
        stored = {self._tag(tag): tag for tag in tags}
        milliseconds = _milliseconds(ttl + _SPARE) if ttl else 0

        async def ask(some: list[str]) -> dict[str, str]:
            tokens = await self._store.script(TAGS, some, (new, milliseconds))
            return {
                stored[each]: token.decode()
                for each, token in zip(some, tokens, strict=True)
                if token is not None
            }

        found: dict[str, str] = {}
        for some in await self._each(stored, ask):
            found |= some
        return found

    # Names on the server.

    def _key(self, key: str) -> str:
        # The colon is there because a cluster takes {} for no braces, and tags have another sign.
        return f"{self._prefix}:{key}}}"

    def _keys(self, key: str) -> tuple[str, str]:
        value = self._key(key)
        return value, f"{value}:load"  # what is in the braces keeps both in one slot of a cluster

    def _tag(self, tag: str) -> str:
        return f"{self._prefix}#{tag}}}"

    async def _each(
        self, keys: Collection[str], call: Callable[[list[str]], Coroutine[Any, Any, T]]
    ) -> list[T]:
        """
        Make one call for all keys; several, if they are many or in several slots of a cluster.

        Raises:
            StoreError: One of them failed.
        """
        groups = _groups(keys, cluster=self._cluster)
        if len(groups) == 1:
            return [await call(groups[0])]
        answers: list[T] = []
        failures: list[Exception] = []

        async def run(group: list[str]) -> None:
            try:
                answers.append(await call(group))
            except Exception as error:  # noqa: BLE001 - raised below, and not in a group
                failures.append(error)

        for first in range(0, len(groups), _AT_ONCE):
            async with anyio.create_task_group() as tasks:
                for group in groups[first : first + _AT_ONCE]:
                    tasks.start_soon(run, group)
            if failures:
                raise failures[0]
        return answers


def _groups(keys: Iterable[str], *, cluster: bool) -> list[list[str]]:
    """Return the keys in groups that one script may have."""
    by_slot: dict[int, list[str]] = {}
    for key in keys:
        slot = 0
        if cluster:
            slot = crc_hqx(key.partition("{")[2].partition("}")[0].encode(), 0) % 16384
        by_slot.setdefault(slot, []).append(key)
    return [
        group[first : first + _MOST]
        for group in by_slot.values()
        for first in range(0, len(group), _MOST)
    ]


def _asking(confirm: tuple[str, str] | None) -> bytes:
    return b"" if confirm is None else _CONFIRM + "".join(confirm).encode()


def _about(keys: list[str], confirm: tuple[str, str] | None) -> bytes:
    """Return the message that keys were changed."""
    text = "\0".join(keys)
    if text.count("\0") >= len(keys):  # a key has one itself: rather too many are dropped
        return _asking(confirm) + _CLEARED
    return _asking(confirm) + _CHANGED + text.encode()


class _Stored(NamedTuple):
    """A value as it is stored, perhaps with tags that are not those of now."""

    value: bytes
    header: bytes
    left: int

    @classmethod
    def parse(cls, stored: bytes, left: int) -> Self:
        """Take the tags from a value."""
        if not stored.startswith(_MARK):
            return cls(stored, b"", left)
        header, newline, value = stored.partition(b"\n")
        return cls(value, header + newline, left)

    def found(self) -> Found:
        """Return what it is for those who read it."""
        seconds = math.inf if self.left < 0 else self.left / 1000
        return Found(self.value, seconds, frozenset(_tags(self.header) if self.header else ()))


def _joined(header: bytes, value: bytes) -> bytes:
    if not header and value.startswith(_MARK):  # it would be taken for one with tags
        header = _MARK + b"{}\n"
    return header + value


def _tags(header: bytes) -> dict[str, str]:
    tags: dict[str, str] = json.loads(header[len(_MARK) :])
    return tags


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
        self._keys: dict[str, tuple[str, Collection[str]]] = {}
        self._running = False

    @contextmanager
    def renewing(self, key: str, token: str, tags: Collection[str] = ()) -> Generator[None]:
        """Renew the lease of a key, whose value will carry ``tags``, while the block lasts."""
        if not self._running:
            start(self._store, self._run)
            self._running = True
        self._keys[token] = (key, tags)
        try:
            yield
        finally:
            self._keys.pop(token, None)

    def outdate(self, tag: str) -> list[tuple[str, str]]:
        """Renew no lease of a value that will carry ``tag``; return their keys and tokens."""
        found = [(key, token) for token, (key, tags) in self._keys.items() if tag in tags]
        for _, token in found:
            del self._keys[token]
        return found

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
                for token, (key, _) in [*keys.items()]:
                    with suppress(StoreError):
                        await self._far.renew(key, token)
        finally:
            if keys is self._keys:  # else another task has been started since
                self._running = False


class Query:
    """
    A task that reads keys from the server, in a ``with`` block.

    Attributes:
        outdated: The keys that were changed since the block, or the last call of `next_message`,
            began, so that the answer may be old.
    """

    __slots__ = ("_keys", "_message", "_queries", "outdated")

    def __init__(self, queries: Queries, keys: Collection[str]) -> None:
        self._queries = queries
        self._keys = keys
        self._message: anyio.Event | None = None
        self.outdated: set[str] = set()

    def __enter__(self) -> Self:
        for key in self._keys:
            self._queries.by_key.setdefault(key, set()).add(self)
        return self

    def __exit__(self, *_: object) -> None:
        by_key = self._queries.by_key
        for key in self._keys:
            queries = by_key[key]
            queries.discard(self)
            if not queries:
                del by_key[key]

    def next_message(self) -> anyio.Event:
        """Return an event that the next message about a key sets, also before it is awaited."""
        self.outdated.clear()
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
            query.outdated.add(key)
            query.wake()

    def all_changed(self) -> None:
        """Treat every key that is being read as changed."""
        for key in self.by_key:
            self.changed(key)

    def tag_changed(self) -> None:
        """Treat every key that is being read as changed, as it may carry the tag; wake nobody."""
        for key, queries in self.by_key.items():
            for query in queries:
                query.outdated.add(key)


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
