"""What the script of `RedisConcurrencyLimiter` does, in Python, for the server in memory."""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtaio._internal import loops
from mtaio.redis._slots import EXCHANGE
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtaio.redis._store import Argument


@dataclass
class Member:
    """A process, as the server sees it."""

    held: int = 0
    number: int = 0
    until: float = 0
    want: int = 0
    turn: int | None = None  # None: not in the queue
    promised: int = 0
    promise_until: float = 0


class Slots(MemoryStore):
    """A server in memory that knows the script, and has been up for long."""

    def __init__(self, **options: Any) -> None:
        super().__init__({EXCHANGE: self._exchange}, **options)
        self.members: dict[str, Member] = {}
        self.token = self.turn = self.most = 0
        self.grants: list[tuple[str, int]] = []

    def start(self, fn: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> object:
        """Start a task, in the block if it is entered, else in the event loop."""
        if self._group is not None:
            return super().start(fn, *args)
        loops.start_task(loops.current_loop(), lambda: fn(*args), copy_context())
        return None

    def forget(self) -> None:
        """Lose what was stored."""
        self.members.clear()

    def _exchange(  # noqa: C901, PLR0912 - line for line as the script
        self, data: dict[str, Any], now: float, keys: list[str], args: list[Argument]
    ) -> list[int]:
        del data
        me, (number, held, want, limit, lease, promise) = str(args[0]), map(float, args[1:])
        number, held, want, limit = map(int, (number, held, want, limit))
        now *= 1e6
        for name in [name for name, member in self.members.items() if member.until <= now]:
            del self.members[name]
        for member in self.members.values():
            if member.promise_until <= now:
                member.promised = 0
        total = sum(member.held for member in self.members.values())
        mine = self.members.get(me)
        if mine is not None and number <= mine.number:
            return [1, 0, 0, total, 0, 0, 0]
        before = 0 if mine is None else mine.held
        if held > before and (mine is None or total + held - before > limit):
            return [0, 0, 0, total, len(self.members), 0, 0]
        if mine is None:
            mine = self.members[me] = Member()
        if mine.turn is None:
            mine.turn = self._next()
        kept, mine.promised = mine.promised, 0
        mine.held, mine.want, mine.number, mine.until = held, want, number, now + lease
        free = limit - sum(member.held + member.promised for member in self.members.values())
        taken = max(0, min(kept, want, free))
        free -= taken
        mine.turn = self._next() if taken else mine.turn
        calls: dict[str, int] = {}
        while free > 0:
            waiting = [
                (member.held + calls.get(name, 0), member.turn, name)
                for name, member in self.members.items()
                if name != me and member.turn is not None and calls.get(name, 0) < member.want
            ]
            if taken < want and (not waiting or (held + taken, mine.turn) <= min(waiting)[:2]):
                taken += 1
                mine.turn = self._next()
            elif waiting:
                name = min(waiting)[2]
                calls[name] = calls.get(name, 0) + 1
            else:
                break
            free -= 1
        for name, count in calls.items():
            member = self.members[name]
            member.turn, member.promised, member.promise_until = None, count, now + promise
            self.start(self.publish, f"{keys[0]}:{name.partition('/')[0]}", str(count))
        mine.held += taken
        mine.want -= taken
        if not mine.want:
            mine.turn = None
        first = int(max(self.token + 1, now))
        self.token = first + taken - 1 if taken else self.token
        self.grants += [(me, first + count) for count in range(taken)]
        if not held + want:
            del self.members[me]
        total = sum(member.held for member in self.members.values())
        self.most = max(self.most, total)
        ask = min(member.until for member in self.members.values()) - now if mine.want else 0
        return [
            *(1, taken, first, total, len(self.members), int(ask) + 1 if ask else 0),
            sum(calls.values()),
        ]

    def _next(self) -> int:
        self.turn += 1
        return self.turn
