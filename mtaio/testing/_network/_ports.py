"""The ports of a host: who has which, who answers there, and when one is free again."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from mtaio.testing._network._names import ANY

if TYPE_CHECKING:
    from collections.abc import Callable

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

    Args:
        now: Returns the virtual time in seconds.
    """

    # Invariant: _taken has no empty list. A port that only waits is given up when it is asked for.
    __slots__ = ("_last", "_now", "_taken")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._taken: dict[tuple[int, int], list[Endpoint | _Waiting]] = {}
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
            if not self._holders(kind, self._last):
                return self._last
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def take(self, endpoint: Endpoint, name: Address) -> None:
        """
        Let a socket have a name.

        Raises:
            OSError: Another has it.
        """
        for other in self._holders(endpoint.KIND, name[1]):
            if (
                other.name is not None
                and _overlap(other.name[0], name[0])
                and (other.listens or not (other.reuses and endpoint.reuses))
            ):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self.share(endpoint, name)

    def share(self, endpoint: Endpoint, name: Address) -> None:
        """Let a socket have a name, whoever has it already."""
        endpoint.name = name
        self._taken.setdefault((endpoint.KIND, name[1]), []).append(endpoint)

    def may_listen(self, endpoint: Endpoint) -> bool:
        """Return whether no other socket listens where this one would."""
        assert endpoint.name is not None  # noqa: S101 - it is bound
        return not any(
            other.listens and other.name is not None and _overlap(other.name[0], endpoint.name[0])
            for other in self._holders(endpoint.KIND, endpoint.name[1])
        )

    def give_up(self, endpoint: Endpoint, *, wait: bool = False) -> None:
        """Let others have what a socket had: at once, or after `TIME_WAIT`."""
        if endpoint.name is None:
            return
        key = endpoint.KIND, endpoint.name[1]
        holders = self._taken.get(key, [])
        left = [each for each in holders if endpoint not in {each, getattr(each, "endpoint", None)}]
        if len(left) == len(holders):
            return
        if wait:
            left.append(_Waiting(endpoint, self._now() + TIME_WAIT))
        if left:
            self._taken[key] = left
        else:
            del self._taken[key]

    def at(self, kind: int, address: Address) -> Endpoint | None:
        """Return the socket that gets what is sent to an address, if there is one."""
        found = None
        for holder in self._holders(kind, address[1]):
            if isinstance(holder, _Waiting) or holder.name is None:
                continue
            if kind == socket.SOCK_STREAM and not holder.listens:
                continue
            if holder.name[0] == address[0] or (holder.name[0] == ANY and found is None):
                found = holder
        return found

    def clear(self) -> None:
        """Let others have all of them."""
        self._taken.clear()

    def _holders(self, kind: int, port: int) -> list[Endpoint | _Waiting]:
        holders = self._taken.get((kind, port))
        if holders is None:
            return []
        now = self._now()
        if any(isinstance(each, _Waiting) and each.until <= now for each in holders):
            holders[:] = [
                each for each in holders if not isinstance(each, _Waiting) or each.until > now
            ]
            if not holders:
                del self._taken[kind, port]
        return holders


class _Waiting:
    """The name of a connection that is over, and of which something may still be on its way."""

    __slots__ = ("endpoint", "name", "reuses", "until")

    listens: Final = False

    def __init__(self, endpoint: Endpoint, until: float) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self.reuses = endpoint.reuses
        self.until = until


def _overlap(one: str, other: str) -> bool:
    return one == other or ANY in {one, other}
