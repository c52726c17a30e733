"""
What the functions of mtaio, AnyIO, asyncio and trio wait for: one line for each that waits.

A `Rule` says what a task waits for that is suspended in a function, and by which variables of that
function the object is found. So nothing has to be noted by those who wait. A name that a library
has changed is a rule that never applies, or that finds less; `tests` check ours, and those of the
versions installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["HOLDING", "IN_PARTS", "KINDS", "LIBRARIES", "READY", "RULES", "Rule"]


READY: Final = "turn"
"""What a task waits for that only lets others run."""


@dataclass(frozen=True, slots=True)
class Rule:
    """
    What is waited for in a function.

    Of several functions that wait inside each other, the innermost counts. One further out counts
    in its place if what is inside is ``plain``, or if it is to ``replace`` it; without ``on`` it
    only names what waits inside.
    """

    on: str = ""
    """One noun."""
    obj: str = "self"
    """The object: a variable, and attributes of it, as all paths here."""
    name: str = ""
    """What is shown in its place, if that is another."""
    detail: str = ""
    """What is shown after its name, as its key."""
    since: str = ""
    """When the wait began, by `clock.now`."""
    sleeps: bool = False
    """Whether it ends at a moment that the variables tell."""
    held_by: str = ""
    """The task that holds the object, an iterable of those that do, or None; as its attribute."""
    every: bool = False
    """Whether it waits until all of them are done."""
    search: str = ""
    """How holders are searched for among all tasks: see `waits`."""
    slots: int | str = 0
    """How many of them there are: a number, or an attribute of the object, which may be None."""
    plain: bool = False
    """Whether what waits around it says more."""
    replace: bool = False
    """Whether it says more than what waits inside."""
    variables: frozenset[str] = field(init=False)
    """The variables to look at."""

    def __post_init__(self) -> None:
        paths = (self.obj, self.name, self.detail, self.since)
        more = _OF_SLEEP if self.sleeps else _OF_FUTURES if self.search == "futures" else ()
        names = frozenset((*(path.partition(".")[0] for path in paths if path), *more))
        object.__setattr__(self, "variables", names)


_OF_SLEEP: Final = ("deadline", "delay", "h", "seconds")
_OF_FUTURES: Final = ("fs", "fut", "return_when")


KINDS: Final[dict[str, str | None]] = {
    "Held": None,
    "TaskGroup": None,  # "tasks" says it
    "Nursery": None,
    "Shares": "Quota",
    "QuotaTasks": "RedisQuota",
    "_KeyLimiter": "RateLimiter",
    "_KeySlots": "ConcurrencyLimiter",
    "_LockImpl": "Lock",
    "Registry": "EventEmitter",
    "Service": "service",
    "Submitted": "task",
    "Task": "task",
    "_SharedThread": "log file",
    "Run": "Application",
    "_Outage": "Redis",
    "JournalFormat": "journal",
    "MemoryChannelState": "memory channel",
    "_MemoryObjectStreamState": "memory object stream",
}
"""How private classes are called; None for those of which there is nothing to say."""

LIBRARIES: Final = frozenset({"anyio", "asyncio", "concurrent", "contextlib", "mtaio", "trio"})
"""The packages in which a wait is looked for; what is around them is the program's own code."""

_SLOT: Final = Rule("slot", since="asked", search="blocks", slots="_in_use")
_LOAD: Final = Rule("load", "load", "load.owner", "load.key", since="load.started", search="load")
_LOCK: Final = Rule("lock", held_by="_owner")
_THREAD: Final = Rule("thread", "func", plain=True)
_SOCKET: Final = Rule("socket", plain=True)
_OF_KEY: Final = Rule(name="self", detail="key")
_NAMED: Final = Rule(name="self")
_READY: Final = Rule(READY, "")

_OURS: Final[dict[str, dict[str, Rule]]] = {
    "mtaio._internal.block": {"OwnedBlock.leave": Rule(name="self._owner")},
    "mtaio.resources._concurrency": {
        "ConcurrencyLimiter.acquire": _SLOT,
        "ConcurrencyLimiter._wait_within": _SLOT,
    },
    "mtaio.resources._keyed_concurrency": {"KeyedConcurrencyLimiter.acquire": _OF_KEY},
    "mtaio.resources._combined": {"ResourceLimiter.__aenter__": _NAMED},
    "mtaio.resources._rate": {
        "RateLimiter.acquire": Rule("token", since="asked"),
        "RateLimiter._serve": Rule("token", since="asked"),
    },
    "mtaio.resources._keyed": {"KeyedRateLimiter.acquire": _OF_KEY},
    "mtaio.resources._shares": {"Shares._wait": Rule("token", since="asked")},
    "mtaio.resources._keyed_quota": {"KeyedQuota.acquire": _OF_KEY},
    "mtaio.resilience._adaptive": {"AdaptiveLimiter._wait": _NAMED},
    "mtaio.clients._buckets": {
        "ServerBuckets._wait": Rule("token", detail="taken.route"),
    },
    "mtaio.cache._fetching": {"Fetcher._wait": _LOAD, "Fetcher._run_and_wait": _LOAD},
    "mtaio.cache._listeners": {"AsyncNotifier.wait_delivered": Rule("listeners")},
    "mtaio.core._slots": {
        "Slots.wait_for": Rule(
            "slot", name="self._owner", since="began", search="items", slots="in_use"
        ),
    },
    "mtaio.core._tasks": {"Task.wait": Rule("task", held_by="task")},
    "mtaio.core._block": {
        "Block._until_idle": Rule(
            "tasks", name="self._owner", held_by="tasks", every=True, replace=True
        ),
        "Block.join": Rule(
            "place", "self._places", "self._owner", search="items", slots="in_use", replace=True
        ),
    },
    "mtaio.core._stream": {
        "Buffer.wait_for_space": Rule("room"),
        "Buffer.wait": Rule("item"),
        "Stream.__anext__": Rule(name="self"),
        "Stream.aclose": Rule("tasks"),
    },
    "mtaio.core._source": {
        "Feed.wait": Rule("item", name="self._source"),
        "Feed._read": Rule("worker", name="self._source"),
        "_merged": Rule("item", "waiter"),
    },
    "mtaio.core._crew": {"Crew.attend": Rule("thread")},
    "mtaio.core._journal": {
        "Recording._values_of": Rule("journal", name="self._format"),
        "Recording._write": Rule("journal", name="self._format"),
    },
    "mtaio.core._via": {"_Chunk.wait": Rule("result", name="self.future")},
    "mtaio.core._processes": {"_Worker._exchange": Rule("process", replace=True)},
    "mtaio.core._threads": {"ThreadCall.make": Rule("thread", "self._call")},
    "mtaio.events._stream": {
        "Blocked.wait": Rule("room", "self._queue", "self.event"),
        "EventStream._wait": Rule("item"),
    },
    "mtaio.events._wait": {"wait_for": Rule("event", "registry", detail="pattern")},
    "mtaio.logging._queue": {"_SharedThread.wait": Rule("flush", replace=True)},
    "mtaio.app._application": {"Application._wait": Rule("shutdown")},
    "mtaio.app._run": {
        "Run.await_signal": Rule("shutdown"),
        "Run._up_and_down": Rule("shutdown"),
        "Run._all_ended": Rule("requests"),
        "Held.enter": Rule("start"),
        "Held.release": Rule("end"),
        "Held._hold": Rule("shutdown"),
    },
    "mtaio.app._lifespan": {
        "Lifespan.__aenter__": Rule("start"),
        "Lifespan.__aexit__": Rule("end"),
        "_Run._receive": Rule("shutdown"),
    },
    "mtaio.redis._concurrency": {"RedisConcurrencyLimiter._wait": Rule("slot", since="asked")},
    "mtaio.redis._rate": {"RedisRateLimiter._wait": Rule("token", since="request.asked")},
    "mtaio.redis._quota_tasks": {"QuotaTasks._wait": Rule("token", since="request.asked")},
    "mtaio.redis._keyed": {
        "RedisKeyedRateLimiter.acquire": _OF_KEY,
        "_Outage.wait_until_back": Rule("server"),
    },
    "mtaio.redis._breaker": {"RedisBreaker._prepare": Rule("place")},
    "mtaio.redis._leader": {"RedisLeader.wait_leader": Rule("leader")},
    "mtaio.redis._far": {"Answers.wait": Rule("answer")},
    "mtaio.redis._tiered": {"TieredCache._find": Rule("load", detail="fetch.key")},
}

_OTHERS: Final[dict[str, dict[str, Rule]]] = {
    "anyio._core._synchronization": {"Condition.wait": Rule("condition")},
    "anyio.streams.memory": {
        "MemoryObjectReceiveStream.receive": Rule("item", "self._state"),
        "MemoryObjectSendStream.send": Rule("room", "self._state"),
    },
    "anyio._backends._asyncio": {
        "AsyncIOBackend.run_sync_in_worker_thread": _THREAD,
        "AsyncIOBackend.wait_readable": Rule("socket", "", plain=True),
        "AsyncIOBackend.wait_writable": Rule("socket", "", plain=True),
        "CapacityLimiter.acquire_on_behalf_of": Rule("slot", held_by="_borrowers"),
        "Event.wait": Rule("event", plain=True),
        "Lock.acquire": Rule("lock", held_by="_owner_task"),
        "Process.wait": Rule("process"),
        "Semaphore.acquire": Rule("slot", search="blocks", slots="_max_value"),
        "SocketStream.receive": _SOCKET,
        "SocketStream.send": _SOCKET,
        "TCPSocketListener.accept": _SOCKET,
        "TaskGroup.__aexit__": Rule("tasks", held_by="_tasks", every=True),
        "TaskGroup.start": Rule("start"),
        "UDPSocket.receive": _SOCKET,
    },
    "anyio._backends._trio": {
        "Lock.acquire": Rule("lock", "self._Lock__original", held_by="_owner"),
        "Semaphore.acquire": Rule(
            "slot", "self._Semaphore__original", search="blocks", slots="_max_value"
        ),
        "TrioBackend.run_sync_in_worker_thread": _THREAD,
    },
    "asyncio.base_events": {
        "BaseEventLoop.getaddrinfo": Rule("name", "host", plain=True),
        "Server.serve_forever": Rule("socket"),
    },
    "asyncio.base_subprocess": {"BaseSubprocessTransport._wait": Rule("process")},
    "asyncio.locks": {
        "Barrier._wait": Rule("barrier", replace=True),
        "Condition.wait": Rule("condition"),
        "Event.wait": Rule("event", plain=True),
        "Lock.acquire": Rule("lock", search="blocks", slots=1),
        "Semaphore.acquire": Rule("slot", search="blocks", slots="_bound_value"),
    },
    "asyncio.queues": {
        "Queue.get": Rule("item"),
        "Queue.join": Rule("items"),
        "Queue.put": Rule("room"),
    },
    "asyncio.selector_events": {
        f"BaseSelectorEventLoop.{name}": Rule("socket", "sock", plain=True)
        for name in ("sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_sendall")
    },
    "asyncio.streams": {
        "FlowControlMixin._drain_helper": _SOCKET,
        "StreamReader._wait_for_data": _SOCKET,
    },
    "asyncio.taskgroups": {
        "TaskGroup.__aexit__": Rule("tasks", held_by="_tasks", every=True),
        "TaskGroup._aexit": Rule("tasks", held_by="_tasks", every=True),
    },
    "asyncio.tasks": {
        "__sleep0": _READY,
        "_wait": Rule("tasks", "fs", search="futures"),
        "sleep": Rule("sleep", "", sleeps=True, plain=True),
        "wait_for": Rule("task", "fut", search="futures"),
    },
    "asyncio.threads": {"to_thread": _THREAD},
    "trio._channel": {
        "MemoryReceiveChannel.receive": Rule("item", "self._state"),
        "MemorySendChannel.send": Rule("room", "self._state"),
    },
    "trio._core._io_epoll": {
        "EpollIOManager._epoll_wait": Rule("socket", "", plain=True),
    },
    "trio._core._io_kqueue": {
        "KqueueIOManager._wait_common": Rule("socket", "", plain=True),
    },
    "trio._core._io_windows": {
        "WindowsIOManager._afd_poll": Rule("socket", "", plain=True),
    },
    "trio._core._run": {
        "Nursery._nested_child_finished": Rule("tasks", held_by="_children", every=True),
        "Nursery.start": Rule("start", replace=True),
    },
    "trio._core._traps": {"cancel_shielded_checkpoint": _READY},
    "trio._subprocess": {"Process.wait": Rule("process")},
    "trio._sync": {
        "CapacityLimiter.acquire_on_behalf_of": Rule("slot", held_by="_borrowers"),
        "Condition.wait": Rule("condition"),
        "Event.wait": Rule("event", plain=True),
        "Semaphore.acquire": Rule("slot", search="blocks", slots="_max_value"),
        "_LockImpl.acquire": _LOCK,
    },
    "trio._threads": {"to_thread_run_sync": Rule("thread", "sync_fn", plain=True)},
    "trio._timeouts": {
        "sleep": Rule("sleep", "", sleeps=True, plain=True),
        "sleep_forever": Rule("sleep", "", plain=True),
        "sleep_until": Rule("sleep", "", sleeps=True, plain=True),
    },
}

RULES: Final = _OURS | _OTHERS
"""By module and qualified name."""

HOLDING: Final = {
    "mtaio._internal.limiting": {
        "limit.<locals>.around.<locals>.limited": "give_back",
    },
    "mtaio.resilience._adapters": {"_ConcurrencyPart.wrap.<locals>.run": "release"},
    "mtaio.resilience._adaptive": {"AdaptiveLimiter.wrap.<locals>.run": "slots"},
}
"""Functions that hold a slot while they call another, without a block, and where the limiter is."""

IN_PARTS: Final = (
    "_concurrency",
    "_slots",
    "_lock",
    "_internal_semaphore",
    "_Semaphore__original",
)
"""The attributes by which an object whose block is entered leads to what is held in it."""
