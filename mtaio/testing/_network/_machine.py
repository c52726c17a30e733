"""What a host is made of: its ports, its sockets, and the life of what runs on it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from mtaio.testing._network._ports import Ports

if TYPE_CHECKING:
    from collections.abc import Callable

    import anyio

    from mtaio.testing._network._endpoint import Endpoint
    from mtaio.testing._network._storage import Storage

__all__ = ["MAIN", "MOST_HOSTS", "Life", "Machine", "acting"]

MAIN: Final = "main"
"""The host on which the code under test runs."""

MOST_HOSTS: Final = 0xFFFE


class Machine:
    """
    A machine on the network.

    Args:
        name: Its name, by which others reach it.
        address: Its address.
        now: Returns the virtual time in seconds.

    Attributes:
        name: Its name, by which others reach it.
        address: Its address.
        up: Whether it answers at all.
        read_rate: How many bytes a second its programs read; None for no limit.
        ports: Which of its sockets have which ports.
        endpoints: All its sockets that are open, by number.
        life: What runs on it now, or did until it was killed.
        disk: Its disk, once it was asked for.
        known: Whether anybody has asked for it, but to name it for a link or a fault.
    """

    __slots__ = (
        "address",
        "disk",
        "endpoints",
        "known",
        "life",
        "name",
        "ports",
        "read_rate",
        "up",
    )

    def __init__(self, name: str, address: str, now: Callable[[], float]) -> None:
        self.name = name
        self.address = address
        self.up = True
        self.read_rate: float | None = None
        self.ports = Ports(now)
        self.endpoints: dict[int, Endpoint] = {}
        self.life = Life(self)
        self.disk: Storage | None = None
        self.known = False

    def kill(self, *, silent: bool) -> None:
        """End what runs on it, and all its sockets; silently, without a word to their peers."""
        self.life.end()
        self.up = not silent
        for endpoint in list(self.endpoints.values()):
            endpoint.die(silent=silent)
        self.endpoints.clear()
        self.ports.clear()
        if self.disk is not None:
            cut = self.disk.crash if silent else self.disk.detach
            cut()


class Life:
    """One life of a machine, from a start to the kill: what belongs to it dies with it."""

    __slots__ = ("over", "scope", "tasks", "where")

    def __init__(self, where: Machine) -> None:
        self.where = where
        self.over = False
        self.scope: anyio.CancelScope | None = None
        self.tasks: WeakKeyDictionary[Any, None] = WeakKeyDictionary()
        """Tasks of asyncio, which may be in no task group, in the order in which they were made."""

    def end(self) -> None:
        """Cancel all that runs in it."""
        self.over = True
        if self.scope is not None:
            self.scope.cancel("the host was killed")


acting: ContextVar[Life | None] = ContextVar("acting", default=None)
"""The life for which this task, or callback, acts."""
