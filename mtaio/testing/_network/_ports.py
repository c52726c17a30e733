"""The ports of a host: who has which, who answers there, and when one is free again."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mtaio.testing._network._names import ANY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mtaio.testing._network._endpoint import Address, Endpoint

__all__ = ["Ports"]

EPHEMERAL: Final = range(32768, 61000)
"""The ports for sockets that ask for any, as on Linux; they are given in turn."""

TIME_WAIT: Final = 60.0
"""For how long Linux keeps the port of a connection that this side has closed first, in seconds."""


class Ports:
    """
    The sockets of a host that have a name.

    As on Linux, several may have one port: on addresses that do not overlap; if all have
    SO_REUSEADDR and none listens; and connections have that of the listener that has accepted them.
    What a connection costs does not grow with their number; to bind looks at all of a port.

    Args:
        now: Returns the virtual time in seconds.
    """

    # Invariants:
    # - _bound has who was bound, and may get what is sent to a port; _connected who was accepted
    #   there, _waiting who was one of them and has closed first, the oldest first: these only keep
    #   others from being bound;
    # - each has the kind and number of a port for a key, and nothing that is empty;
    # - what waits no longer is given up when something else is noted or asked for.
    __slots__ = ("_bound", "_connected", "_last", "_now", "_waiting")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._bound: dict[_Port, list[Endpoint]] = {}
        self._connected: dict[_Port, dict[int, Endpoint]] = {}
        self._waiting: dict[_Port, dict[int, _Waiting]] = {}
        self._last = EPHEMERAL.stop - 1

    def free(self, kind: int) -> int:
        """
        Return the number of a port that no socket has.

        Raises:
            OSError: There is none.
        """
        for _ in EPHEMERAL:
            self._last += 1
            if self._last not in EPHEMERAL:
                self._last = EPHEMERAL.start
            if not any(self._holders((kind, self._last))):
                return self._last
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def take(self, endpoint: Endpoint, name: Address) -> None:
        """
        Let a socket have a name.

        Raises:
            OSError: Another has it.
        """
        key = endpoint.KIND, name[1]
        for other in self._holders(key):
            if _overlap(other.name, name) and (
                other.listens or not (other.reuses and endpoint.reuses)
            ):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        endpoint.name = name
        self._bound.setdefault(key, []).append(endpoint)

    def accept(self, endpoint: Endpoint, name: Address) -> None:
        """Let a connection have the name at which its listener has accepted it."""
        endpoint.name = name
        self._connected.setdefault((endpoint.KIND, name[1]), {})[endpoint.number] = endpoint

    def may_listen(self, endpoint: Endpoint) -> bool:
        """Return whether no other socket listens where this one would."""
        assert endpoint.name is not None  # noqa: S101 - it is bound
        return not any(
            other.listens and _overlap(other.name, endpoint.name)
            for other in self._bound.get((endpoint.KIND, endpoint.name[1]), ())
        )

    def give_up(self, endpoint: Endpoint, *, wait: bool = False) -> None:
        """Let others have what a socket had: at once, or after `TIME_WAIT`."""
        if endpoint.name is None:
            return
        key = endpoint.KIND, endpoint.name[1]
        bound = self._bound.get(key, [])
        if endpoint in bound:
            bound.remove(endpoint)
            if not bound:
                del self._bound[key]
        elif not _remove(self._connected, key, endpoint.number):
            _remove(self._waiting, key, endpoint.number)
            return  # it waited, or has given it up before
        if wait:
            waiting = _Waiting(endpoint.name, self._now() + TIME_WAIT, reuses=endpoint.reuses)
            self._still_waiting(key)
            self._waiting.setdefault(key, {})[endpoint.number] = waiting

    def at(self, kind: int, address: Address) -> Endpoint | None:
        """Return the socket that gets what is sent to an address, if there is one."""
        found = None
        for holder in self._bound.get((kind, address[1]), ()):
            if holder.name is None or (kind == socket.SOCK_STREAM and not holder.listens):
                continue
            if holder.name[0] == address[0] or (holder.name[0] == ANY and found is None):
                found = holder
        return found

    def clear(self) -> None:
        """Let others have all of them."""
        for each in (self._bound, self._connected, self._waiting):
            each.clear()

    def _holders(self, key: _Port) -> Iterator[Endpoint | _Waiting]:
        """Yield all that have a port."""
        yield from self._bound.get(key, ())
        yield from self._connected.get(key, {}).values()
        yield from self._still_waiting(key)

    def _still_waiting(self, key: _Port) -> Iterable[_Waiting]:
        """Give up what waits no longer, and return the rest."""
        waiting = self._waiting.get(key, {})
        now = self._now()
        while waiting and waiting[oldest := next(iter(waiting))].until <= now:
            _remove(self._waiting, key, oldest)
        return waiting.values()


_Port: TypeAlias = tuple[int, int]
"""The kind of sockets that have it, and its number."""


class _Waiting:
    """The name of a connection that is over, and of which something may still be on its way."""

    __slots__ = ("name", "reuses", "until")

    listens: Final = False

    def __init__(self, name: Address, until: float, *, reuses: bool) -> None:
        self.name = name
        self.reuses = reuses
        self.until = until


def _remove(ports: dict[_Port, dict[int, Any]], key: _Port, number: int) -> bool:
    """Take a socket out, and the port if that was the last of it; return whether it was there."""
    holders = ports.get(key, {})
    if holders.pop(number, None) is None:
        return False
    if not holders:
        del ports[key]
    return True


def _overlap(one: Address | None, other: Address) -> bool:
    return one is not None and (one[0] == other[0] or ANY in {one[0], other[0]})
