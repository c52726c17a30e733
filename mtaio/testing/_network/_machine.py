"""What a host is made of: its ports, its sockets, and the life of what runs on it."""

from __future__ import annotations

import itertools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    import anyio

    from mtaio.testing._network._endpoint import Endpoint

__all__ = ["Life", "Machine", "acting"]

FIRST_EPHEMERAL = 32768
"""The first of the ports for sockets that ask for any, as on Linux."""


class Machine:
    """
    A machine on the network.

    Attributes:
        name: Its name, by which others reach it.
        address: Its address.
        up: Whether it answers at all.
        read_rate: How many bytes a second its programs read; None for no limit.
        ports: The bound sockets, by kind and number.
        endpoints: All its sockets that are open, by number.
        life: What runs on it now, or did until it was killed.
    """

    __slots__ = ("_free", "address", "endpoints", "life", "name", "ports", "read_rate", "up")

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.up = True
        self.read_rate: float | None = None
        self.ports: dict[tuple[int, int], Endpoint] = {}
        self.endpoints: dict[int, Endpoint] = {}
        self.life = Life(self)
        self._free = itertools.count(FIRST_EPHEMERAL)

    def free_port(self, kind: int) -> int:
        """Return the number of a port that no socket has."""
        return next(port for port in self._free if (kind, port) not in self.ports)

    def kill(self, *, silent: bool) -> None:
        """End what runs on it, and all its sockets; silently, without a word to their peers."""
        self.life.end()
        self.up = not silent
        for endpoint in list(self.endpoints.values()):
            endpoint.die(silent=silent)
        self.endpoints.clear()
        self.ports.clear()


class Life:
    """One life of a machine, from a start to the kill: what belongs to it dies with it."""

    __slots__ = ("over", "scope", "tasks", "where")

    def __init__(self, where: Machine) -> None:
        self.where = where
        self.over = False
        self.scope: anyio.CancelScope | None = None
        self.tasks: WeakSet[Any] = WeakSet()
        """Tasks of asyncio, which may be in no task group."""

    def end(self) -> None:
        """Cancel all that runs in it."""
        self.over = True
        if self.scope is not None:
            self.scope.cancel("the host was killed")

    def bury(self) -> None:
        """Cancel what its program has left running in no task group, now that it has ended."""
        for task in self.tasks:
            if not task.done():
                task.cancel()


acting: ContextVar[Life | None] = ContextVar("acting", default=None)
"""The life for which this task, or callback, acts."""
