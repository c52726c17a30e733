"""
What a program's socket stands for: its descriptor, names, options and state.

A simulated socket keeps the descriptor that the kernel gave it. One end of a pair of Unix sockets
is laid on that with ``dup2`` as soon as there is something to wait for, so that selectors,
transports and TLS work unchanged; the other end, the *wire*, belongs to the network.
"""

from __future__ import annotations

import errno
import os
import socket
from _socket import socketpair  # plain ones, without what is replaced and what that costs
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mtaio.testing._network._options import Settings

if TYPE_CHECKING:
    import _socket

    from mtaio.testing._network._core import Core
    from mtaio.testing._network._machine import Life

__all__ = ["Address", "Endpoint", "error_of"]

Address = tuple[str, int]

NOWHERE: Final = ("0.0.0.0", 0)  # noqa: S104 - what a socket without a name says
BUFFER: Final = 131_072
"""What a program may send that the network has not taken yet; the kernel doubles it."""


def error_of(code: int) -> OSError:
    """Return the error that the kernel raises for a code."""
    return OSError(code, os.strerror(code))


class Endpoint(ABC):
    """
    A simulated socket, found by its descriptor.

    Args:
        network: Its network.
        life: The life of the host on which it is.
        fd: Its descriptor; None until somebody accepts it.

    Attributes:
        number: Its place among all sockets of the network; a stable order.
        name: The address that it is bound to, if it is.
        peer: The address of the other end, if it is connected.
        wire: The network's end of its pair, if it has one.
        open: Whether a program has it open.
        descriptors: All that programs have for it: one, and one for each duplicate.
        inode: What they stand for in the kernel.
        duplicated: Whether a program has, or had, several descriptors of it.
    """

    KIND: ClassVar[int]
    """``SOCK_STREAM`` or ``SOCK_DGRAM``."""
    PROTOCOL: ClassVar[int]
    """``IPPROTO_TCP`` or ``IPPROTO_UDP``."""

    def __init__(self, network: Core, life: Life, fd: int | None) -> None:
        self.network = network
        self.life = life
        self.host = life.where
        self.fd = fd
        self.descriptors: set[int] = set()
        self.inode = -1
        self.number = network.number()
        self.name: Address | None = None
        self.peer: Address | None = None
        self._label = f"{self.host.name}:0"
        self._labelled: Address | None = None
        self.wire: _socket.socket | None = None
        self.open = True
        self.duplicated = False
        self.error = 0
        self.settings = Settings(network.options, self.KIND)

    def label(self) -> str:
        """Return host and port, for the trace."""
        if self._labelled is not self.name:
            self._labelled = self.name
            self._label = f"{self.host.name}:{self.name[1] if self.name else 0}"
        return self._label

    # ---- what programs call, in the place of the kernel ----

    def bind(self, address: Any) -> None:
        """Give it a name, as ``bind`` does."""
        ip, port = self.network.names.address("bind", address)
        if self.name is not None:
            raise error_of(errno.EINVAL)
        if ip not in {"0.0.0.0", "127.0.0.1", self.host.address}:  # noqa: S104 - all of its own
            raise error_of(errno.EADDRNOTAVAIL)
        self.host.ports.take(self, (ip, port or self.host.ports.free(self.KIND)))

    def getsockname(self) -> Address:
        """Return its name, of zeros while it has none."""
        return self.name or NOWHERE

    def getpeername(self) -> Address:
        """Return the name of the other end."""
        assert self.peer is not None  # noqa: S101 - it is connected
        return self.peer

    def getsockopt(self, level: int, option: int, *size: int) -> Any:
        """Return an option: what was set, else its default."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            return self.take_error()
        return self.settings.get(level, option, *size)

    def take_error(self) -> int:
        """Return the error that was not told yet, and forget it: one program learns of it once."""
        error, self.error = self.error, 0
        return error

    def setsockopt(self, level: int, option: int, value: Any, *size: int) -> None:
        """Set an option. The refused ones would change what the network does not simulate."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_REUSEPORT) and value:
            msg = (
                "SO_REUSEPORT is not simulated: one socket has a port. Start one program on each "
                "host instead, or leave reuse_port out in tests."
            )
            raise RuntimeError(msg)
        self.settings.set(level, option, value, *size)

    @property
    def reuses(self) -> bool:
        """Whether it has SO_REUSEADDR."""
        return bool(self.settings.number(socket.SOL_SOCKET, socket.SO_REUSEADDR))

    @property
    def listens(self) -> bool:
        """Whether it accepts connections."""
        return False

    # ---- what the network calls ----

    def lay(self) -> None:
        """Lay one end of a new pair onto the descriptor."""
        # Pairs of datagram sockets hold ten packets at most; sequential ones keep packets as well.
        kind = socket.SOCK_STREAM if self.KIND == socket.SOCK_STREAM else socket.SOCK_SEQPACKET
        mine, self.wire = socketpair(socket.AF_UNIX, kind)
        for each in (mine, self.wire):
            each.settimeout(0)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        if self.fd is None:
            self.fd = mine.detach()
        else:
            for descriptor in {self.fd, *self.descriptors}:
                os.dup2(mine.fileno(), descriptor, inheritable=False)
            mine.close()
        self.network.wires.laid[self.number] = self
        self.network.sockets.laid(self)

    def drop_wire(self) -> None:
        """Close the network's end, which the program sees as the end."""
        if self.wire is not None:
            del self.network.wires.laid[self.number]
            self.wire.close()
            self.wire = None

    def awaits_writing(self) -> bool:
        """Return whether its program may wait until there is room for what it sends."""
        return self.duplicated or (self.fd is not None and self.network.awaits_writing(self.fd))

    def closed(self) -> None:
        """Note that no program has it open any more."""
        self.open = False
        self.host.endpoints.pop(self.number, None)

    @abstractmethod
    def die(self, *, silent: bool) -> None:
        """Note that its host is dead."""
