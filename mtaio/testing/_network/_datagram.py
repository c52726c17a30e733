"""UDP: datagrams, which arrive whole or not at all."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from mtaio.testing._network._endpoint import Address, Endpoint, error_of
from mtaio.testing._network._names import ANY, LOOPBACK

if TYPE_CHECKING:
    from mtaio.testing._network._core import Core
    from mtaio.testing._network._machine import Life, Machine

__all__ = ["HEAD", "NOBODY", "Datagram", "unpacked"]

HEAD: Final = struct.Struct("!4sH")
"""What stands before each datagram in the kernel: the address and the port of the sender."""
NOBODY: Final = b"!"
"""What stands there in the place of a datagram when nobody got the one that was sent."""
LARGEST: Final = 65_507
"""The most bytes of a datagram."""


class Datagram(Endpoint):
    """
    A socket for datagrams.

    Attributes:
        mute: Whether the program has shut down sending.
    """

    KIND = socket.SOCK_DGRAM
    PROTOCOL = socket.IPPROTO_UDP

    def __init__(self, network: Core, life: Life, fd: int | None) -> None:
        super().__init__(network, life, fd)
        self.mute = False
        self.lay()  # there may be something to wait for before it has a name

    def connect(self, address: Any) -> int:
        """Let it talk to one peer alone."""
        ip, port = self.network.names.address("connect", address)
        if ip == ANY:
            ip = LOOPBACK
        self._ensure_name(ip)
        self.peer = ip, port
        return 0

    def _ensure_name(self, ip: str) -> None:
        if self.name is None:
            self.bind((LOOPBACK if ip == LOOPBACK else self.host.address, 0))

    def send(self, data: Any, address: Any = None) -> int:
        """Send a datagram, and return its size."""
        size = memoryview(data).nbytes
        ip, port = self._to(address)
        error = self.take_error()
        if self.mute:
            error = errno.EPIPE
        elif size > LARGEST:
            error = errno.EMSGSIZE
        elif self.life.over:
            error = errno.ENETDOWN
        if error:
            raise error_of(error)
        network = self.network
        target = self.host if ip == LOOPBACK else network.machine_at(ip)
        if target is None:
            raise error_of(errno.ENETUNREACH)
        if self.name is None:
            self.bind((ANY, 0))
        self._send(target, (ip, port), bytes(data))
        return size

    def _send(self, target: Machine, to: Address, data: bytes) -> None:
        """Put a datagram on its way, or lose it."""
        assert self.name is not None  # noqa: S101 - it is bound
        network = self.network
        own = LOOPBACK if to[0] == LOOPBACK else self.host.address
        packet = HEAD.pack(socket.inet_aton(own), self.name[1]) + data
        fault = network.faults.between(self.host.name, target.name)
        if fault is not None:
            fault.strike()
            network.held += 1
            if fault.kind == "hold":
                network.wait_for_heal(lambda: self._depart(target, to, packet))
        elif network.links.loses(self.host.name, target.name):
            network.note("lost", self.label(), f"{target.name}:{to[1]}")
        else:
            self._depart(target, to, packet)
            if network.links.doubles(self.host.name, target.name):
                network.note("duplicated", self.label(), f"{target.name}:{to[1]}")
                self._depart(target, to, packet)

    def _to(self, address: Any) -> Address:
        """Return where to send, for what a program says, which is None for its peer."""
        if address is None:
            if self.peer is None:
                raise error_of(errno.EDESTADDRREQ)
            return self.peer
        ip, port = self.network.names.address("sendto", address)
        if not port:
            raise error_of(errno.EINVAL)
        return LOOPBACK if ip == ANY else ip, port

    def _depart(self, target: Machine, to: tuple[str, int], packet: bytes) -> None:
        network = self.network
        when = network.links.arrival(self.host.name, target.name, len(packet), network.now())
        network.at(when, object(), self._arrive, target, to, packet)

    def _arrive(self, target: Machine, to: tuple[str, int], packet: bytes) -> None:
        network = self.network
        fault = network.faults.between(self.host.name, target.name)
        if fault is not None:
            fault.strike()
            network.held += 1
            if fault.kind == "hold":
                network.wait_for_heal(lambda: self._depart(target, to, packet))
            return
        if not target.up:
            return
        where = f"{target.name}:{to[1]}"
        receiver = target.ports.at(self.KIND, to)
        if not isinstance(receiver, Datagram):
            network.note("unreachable", self.label(), where)
            back = network.links.arrival(target.name, self.host.name, 0, network.now())
            network.at(back, object(), self._unreachable, to)
            return
        network.delivered += 1
        network.note(f"datagram of {len(packet) - HEAD.size} bytes", self.label(), where)
        receiver._receive(packet)  # noqa: SLF001 - of this class

    def _receive(self, packet: bytes) -> None:
        if self.peer is not None and unpacked(packet)[1] != self.peer:
            return  # it is connected to somebody else
        assert self.wire is not None  # noqa: S101 - it has its port still
        try:
            self.wire.send(packet)
        except OSError:
            self.network.note("dropped", self.label(), "its buffer is full")

    def _unreachable(self, to: tuple[str, int]) -> None:
        """Tell the program that nobody is there, if it is connected to that address."""
        if self.open and self.peer == to and self.wire is not None:
            self.error = errno.ECONNREFUSED
            self.wire.send(NOBODY)  # wakes whoever reads, who is told then

    def getpeername(self) -> tuple[str, int]:
        """Return the address of its peer; a peer without a port is none."""
        if self.peer is None or not self.peer[1]:
            raise error_of(errno.ENOTCONN)
        return self.peer

    def listen(self, *_: int) -> None:
        """Refuse to listen."""
        raise error_of(errno.EOPNOTSUPP)

    def accept(self, _: Any) -> tuple[int, Any]:
        """Refuse to accept."""
        raise error_of(errno.EOPNOTSUPP)

    def shutdown(self, how: int, _: Any) -> None:
        """End sending; what arrives is received all the same, as Linux does."""
        if self.peer is None:
            raise error_of(errno.ENOTCONN)
        if how not in {socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR}:
            raise error_of(errno.EINVAL)
        self.mute = self.mute or how != socket.SHUT_RD

    def closed(self) -> None:
        """Note that no program has it open any more."""
        super().closed()
        self.host.ports.give_up(self)
        self.drop_wire()

    def die(self, *, silent: bool) -> None:  # noqa: ARG002 - of every endpoint
        """Note that its host is dead."""
        self.dead = True
        self.drop_wire()


def unpacked(packet: bytes) -> tuple[bytes, tuple[str, int]]:
    """Return the data of a packet, and the address of its sender."""
    ip, port = HEAD.unpack_from(packet)
    return packet[HEAD.size :], (socket.inet_ntoa(ip), port)
