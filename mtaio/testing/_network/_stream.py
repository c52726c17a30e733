"""
TCP, as a program sees it: connections, bytes in order, the end of them, and resets.

What is simulated, and with which times, is in a table of docs/en/design/network.md. In short: what
programs write in one moment leaves as one, arrives after the latency of the link, and waits at the
receiver while that does not read; a partition keeps it from arriving until it is healed, or until
the sender's kernel gives up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from _socket import socket as plain
from bisect import insort
from collections import deque
from contextlib import suppress
from enum import Enum, auto
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from mtaio.testing._network import _filter
from mtaio.testing._network._endpoint import BUFFER, Endpoint, error_of
from mtaio.testing._network._links import Piece
from mtaio.testing._network._names import ANY, LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.testing._network._core import Core
    from mtaio.testing._network._faults import Cause
    from mtaio.testing._network._machine import Life, Machine

__all__ = ["Stream"]

WINDOW: Final = 262_144
"""How many bytes may be between a program that writes and the kernel of the one that reads."""
ROOM: Final = 131_072
"""How many bytes a program can write before any are taken. It is less than every kernel allows."""
READ: Final = ROOM + 1
"""How many bytes are taken from a program at once: one more says that there may be others."""
UNREAD: Final = 131_072
"""How many bytes the reader's kernel keeps for it."""
PIECES: Final = 64
"""In how many pieces a program can write them. Each costs the kernel more than its bytes."""
WASTE: Final = 113_664
"""How much the reader's kernel may need beside those bytes: so that a last piece fits into `BUFFER`
twice, as it has to."""
TICK: Final = 0.1
"""How often a host with a `read_rate` reads, in seconds."""

SYN_RETRIES: Final = 6
"""Linux's tcp_syn_retries: after 1, 2, 4, 8, 16 and 32 s; it gives up 64 s after the last."""
CONNECT_GIVES_UP_AFTER: Final = 127.0
"""When it gives up, in seconds after the first."""
GIVES_UP_AFTER: Final = 924.6
"""Linux's tcp_retries2: when data that nobody acknowledges makes a connection fail, in seconds."""
KEEP_ALIVE: Final = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
"""When a silent connection is looked at, how often after that, and how many times in vain."""
NO_LINGER: Final = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing resets the connection."""


_number: Final = itemgetter(0)


class State(Enum):
    """The states of TCP that a program can tell apart."""

    NEW = auto()
    CONNECTING = auto()
    FAILED = auto()
    LISTENING = auto()
    OPEN = auto()
    DEAD = auto()


class Mark(Enum):
    """What travels beside bytes."""

    ACK = auto()
    FIN = auto()
    RST = auto()


class Stream(Endpoint):
    """
    One end of a connection, or a listener.

    Attributes:
        other: The other end, once there is one.
        state: Its state.
    """

    # Invariants:
    # - leaving is what was taken from the program in this moment; ending what comes after it, and
    #   has_left says that this is on its way;
    # - flying counts the bytes taken from this program that are not in the other's kernel yet,
    #   those in leaving and held among them; at WINDOW no more are taken;
    # - room is what the program can still write before something is taken, and pieces how often;
    #   at 0 it is choked: its kernel's buffer is made so small that it has to wait;
    # - arrives is when the last thing sent arrives: nothing overtakes it;
    # - sent numbers what this end has sent;
    # - held is what a fault keeps back, held_since since when there is something among it that the
    #   other end would have to acknowledge; is_waited_for that no kernel gives up, in a hold;
    # - again has the numbers of what was held and is on its way again, and of what waits for that;
    # - stuck is what has arrived for this program and is not in its kernel yet;
    # - heard_all says that the program knows of the other's end;
    # - pushed is at least what its kernel keeps for it, and wasted what it needs for that besides;
    # - expected counts the connections of a listener whose handshakes go on;
    # - told says that connect() has said that there is a connection;
    # - reads says that there is, or may be, something to read, or that there was;
    # - ended says that the other's FIN has arrived here, parted that this one's has arrived there;
    # - deaf says that the program has shut down reading;
    # - has_given_name says that the program chose its port, which is kept after the end then;
    # - filter is the program that chooses which requests to connect a listener sees.
    KIND = socket.SOCK_STREAM
    PROTOCOL = socket.IPPROTO_TCP

    def __init__(self, network: Core, life: Life, fd: int | None) -> None:
        super().__init__(network, life, fd)
        self.other: Stream | None = None
        self.state = State.NEW
        self.leaving: list[bytes] = []
        self.ending: Mark | None = None
        self.has_left = False
        self.flying = 0
        self.room = ROOM
        self.pieces = PIECES
        self.choked: ref[Any] | None = None
        self.arrives = 0.0
        self.sent = 0
        self.held: list[tuple[int, Piece | Mark]] = []
        self.held_since: float | None = None
        self.is_waited_for = False
        self.again: list[int] = []
        self.began = 0.0
        self.stuck: deque[Piece | Mark] = deque()
        self.heard_all = False
        self.pushed = 0
        self.wasted = 0
        self.reads_at = 0.0
        self.listener: Stream | None = None
        self.backlog: deque[Stream] = deque()
        self.expected = 0
        self.limit = 0
        self.told = True
        self.reads = False
        self.ended = False
        self.parted = False
        self.deaf = False
        self.has_given_name = False
        self.filter: bytes | None = None

    # ---- what programs call ----

    def listen(self, backlog: int = 128) -> None:
        """Let others connect; so many wait to be accepted, and one more."""
        self.limit = max(backlog, 0)
        if self.state is State.LISTENING:
            return
        if self.state is not State.NEW:
            raise error_of(errno.EINVAL)
        if self.name is None:
            self.bind((ANY, 0))
        if not self.host.ports.may_listen(self):
            raise error_of(errno.EADDRINUSE)
        self.state = State.LISTENING
        self.lay()
        self._stuff()

    def bind(self, address: Any) -> None:
        """Give it a name, as ``bind`` does."""
        super().bind(address)
        self.has_given_name = True

    def connect(self, address: Any) -> int:
        """Begin to connect, and return the error number that ``connect_ex`` returns."""
        network = self.network
        ip, port = network.names.address("connect", address)
        if self.life.over:
            return errno.ENETDOWN
        if self.state is not State.NEW:
            return self._refuse_to_connect()
        if ip == ANY:
            ip = LOOPBACK
        target = self.host if ip == LOOPBACK else network.machine_at(ip)
        if self.name is None:
            try:
                super().bind((LOOPBACK if ip == LOOPBACK else self.host.address, 0))
            except OSError:  # all ports are taken: not what bind() says
                return errno.EADDRNOTAVAIL
        elif self.name[0] == ANY:
            self.name = LOOPBACK if ip == LOOPBACK else self.host.address, self.name[1]
        self.peer = ip, port
        self.lay()
        self._stuff()
        self.state = State.CONNECTING
        self.began = network.now()
        self.reads = True
        if target is None:
            network.at(network.now(), self, self._settle, errno.ENETUNREACH)
        else:
            self._send_syn(target, 0)
        return errno.EINPROGRESS

    def _stuff(self) -> None:
        """Fill the buffer of the program's end, so that it is not writable."""
        with suppress(BlockingIOError):
            while True:
                os.write(self._descriptor(), bytes(65536))

    def _refuse_to_connect(self) -> int:
        """Return what a connect() says after another one."""
        if self.state is State.CONNECTING:
            return errno.EALREADY
        if self.state is State.FAILED:  # it says why, and the next one tries again
            self.state = State.NEW
            self.reads = False
            return self.take_error() or errno.ECONNABORTED
        if self.state is State.DEAD:
            return errno.EINVAL
        if not self.told:
            self.told = True
            return 0
        return errno.EISCONN

    def accept(self, sock: Any) -> tuple[int, Any]:
        """Return the descriptor of the connection that waits longest, and its peer's address."""
        if self.state is not State.LISTENING:
            raise error_of(errno.EINVAL)
        if not self.backlog:
            raise error_of(errno.EAGAIN)
        stream = self.backlog.popleft()
        if not self.backlog:
            self.network.sockets.receive(sock, 1)  # the byte that said that there is one
        self.network.sockets.accepted(stream)
        return stream._descriptor(), stream.peer  # noqa: SLF001 - of this class

    def getpeername(self) -> tuple[str, int]:
        """Return the address of the other end, as long as there is a connection."""
        if not self._is_connected():
            raise error_of(errno.ENOTCONN)
        return super().getpeername()

    def _is_connected(self) -> bool:
        is_over = self.ended and self.parted
        return self.state is State.OPEN and self.wire is not None and not is_over

    def getsockopt(self, level: int, option: int, *size: int) -> Any:
        """Return an option."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return int(self.state is State.LISTENING)
        return super().getsockopt(level, option, *size)

    def setsockopt(self, level: int, option: int, value: Any, *size: int) -> None:
        """Set an option."""
        if level != socket.SOL_SOCKET or option not in {_filter.ATTACH, _filter.DETACH}:
            super().setsockopt(level, option, value, *size)
            return
        self.network.options.check(self.KIND, level, option, value, *size)
        self.filter = _filter.attached(value) if option == _filter.ATTACH else None

    def shutdown(self, how: int, real: Callable[[int], object]) -> None:
        """End one way or both; ``real`` is what ends it in the kernel."""
        reading = how in {socket.SHUT_RD, socket.SHUT_RDWR}
        if how not in {socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR}:
            raise error_of(errno.EINVAL)
        if self.state is State.LISTENING:
            if reading:
                self._stop_listening(State.NEW)
        elif self.state is State.CONNECTING:
            self._settle(errno.ECONNRESET)
        elif self.state is State.FAILED:
            self.state = State.DEAD
            raise error_of(errno.ENOTCONN)
        elif not self._is_connected():
            raise error_of(errno.ENOTCONN)
        else:
            self.told = True
            self.deaf = self.deaf or reading
            real(how)

    def read_failed(self, code: int | None) -> int:
        """
        Return what a program is told that could not read.

        Args:
            code: The number of the error that the kernel has told it; 0 for the end.

        Returns:
            The number of an error, 0 for the end.
        """
        if code in {0, errno.ECONNRESET}:
            # The kernel tells of a reset each way once, TCP tells of it once; and who has had the
            # end of what is to be read is told by nothing else than writing.
            return 0 if self.ended else self.take_error()
        return code or errno.EIO

    def write_failed(self, code: int | None) -> int:
        """Return what a program is told that could not write, for what the kernel has told it."""
        if code == errno.EAGAIN and self.state is State.LISTENING:
            return errno.EPIPE
        if code == errno.EPIPE:
            return self.take_error() or errno.EPIPE
        return code or errno.EIO

    @property
    def listens(self) -> bool:
        """Whether it accepts connections."""
        return self.state is State.LISTENING

    # ---- a connection is made ----

    def _send_syn(self, target: Machine, attempt: int) -> None:
        network = self.network
        when = network.links.arrival(self.host.name, target.name, 0, network.now())
        network.at(when, self, self._syn, target, attempt)

    def _syn(self, target: Machine, attempt: int) -> None:
        """Let the request for a connection arrive."""
        if not self.open or self.state is not State.CONNECTING:
            return
        network, peer = self.network, self.peer
        assert peer is not None  # noqa: S101 - it is connecting
        fault = network.faults.between(self.host.name, target.name)
        if fault is not None:
            fault.strike()
            if fault.kind == "hold":
                network.wait_for_heal(lambda: self._send_syn(target, attempt))
                return
        listener = target.ports.at(self.KIND, peer)
        assert listener is None or isinstance(listener, Stream)  # noqa: S101 - of this kind
        unseen = listener is not None and not listener._sees(self)  # noqa: SLF001 - of this class
        if fault is not None or unseen or not target.up:
            wait = 2.0**attempt  # the moment at which it is sent again; the way there is as long
            then = network.now() + wait
            if attempt == SYN_RETRIES:
                network.at(then, self, self._settle, errno.ETIMEDOUT)
            else:
                network.at(then, self, self._syn, target, attempt + 1)
            return
        back = network.links.arrival(target.name, self.host.name, 0, network.now())
        refusing = network.faults.refusing(target.name, peer[1])
        if refusing is not None:
            refusing.strike()
        if listener is None or refusing is not None:
            network.note("refused", self.label(), f"{target.name}:{peer[1]}")
            network.at(back, self, self._settle, errno.ECONNREFUSED)
            return
        twin = Stream(network, target.life, None)
        twin.name, twin.peer = peer, self.name
        twin.settings.inherit(listener.settings)
        twin.other, self.other = self, twin
        twin.listener = listener
        listener.expected += 1
        network.at(back, self, self._settle, 0)

    def _sees(self, client: Stream) -> bool:
        """Return whether a request to connect reaches this listener, as far as it is concerned."""
        if len(self.backlog) + self.expected > self.limit:
            return False
        assert client.name is not None and client.peer is not None  # noqa: S101, PT018 - it connects
        return self.filter is None or _filter.lets_in(self.filter, client.name[1], client.peer[1])

    def _settle(self, error: int) -> None:
        """Let the program know that it is connected, or that this has failed."""
        if not self.open or self.state is not State.CONNECTING:
            return
        network, other = self.network, self.other
        if not error and other is not None:
            fault = network.faults.between(other.host.name, self.host.name)
            if fault is not None:  # the answer is sent again
                fault.strike()
                if fault.kind == "hold":
                    network.wait_for_heal(lambda: self._settle(0))
                    return
                gives_up = self.began + CONNECT_GIVES_UP_AFTER
                if network.now() < gives_up:
                    network.at(min(network.now() + 1, gives_up), self, self._settle, 0)
                    return
                error = errno.ETIMEDOUT
        self.error = error
        self.state = State.FAILED if error else State.OPEN
        wire = self.wire
        assert wire is not None  # noqa: S101 - it was laid
        try:
            while wire.recv(1 << 20):  # pragma: no branch - it would be closed without a word
                pass
        except BlockingIOError:
            pass
        if error:
            self._abandon()
            self.drop_wire()
        else:
            assert other is not None  # noqa: S101 - it has answered
            self.told = False
            network.note("connected", self.label(), other.label())
            network.wires.watch(self)
            self._send(Mark.ACK)

    def _accepted_at(self, listener: Stream) -> None:
        """Let the listener have this end of a connection."""
        listener.expected -= 1
        self.listener = None
        if not listener.open or listener.state is not State.LISTENING:
            self.state = State.DEAD
            self._refuse()
            return
        assert self.name is not None  # noqa: S101 - its peer has connected to it
        self.lay()
        self.state = State.OPEN
        self.reads = True
        self.host.ports.accept(self, self.name)
        self.has_given_name = True
        listener.backlog.append(self)
        self.host.endpoints[self.number] = self
        self.network.wires.watch(self)
        if len(listener.backlog) == 1 and listener.wire is not None:
            listener.wire.send(b"+")  # readable for as long as there is one

    # ---- what is sent ----

    def take(self, *, ending: bool) -> bool:
        """Take what the program has sent."""
        wire = self.wire
        if wire is None or self.ending is not None:  # pragma: no cover - as in _hang_up
            return False
        before = self.flying
        while True:
            try:
                data = wire.recv(READ)
            except BlockingIOError:  # pragma: no cover - the last one was as large by chance
                break
            except ConnectionResetError:  # it was closed with something unread
                self._end(Mark.RST)
                return True
            if not data:
                self._end(Mark.RST if self._leaves_with_reset() else Mark.FIN)
                return True
            self.leaving.append(data)
            self.flying += len(data)
            if len(data) < READ and not ending:
                break  # that was all
        self.room = ROOM
        self.pieces = PIECES
        if self.flying >= WINDOW:
            self.network.wires.unwatch(self)
        if self.choked is not None:
            self._size_buffer(self.choked(), BUFFER)
            self.choked = None
        return self.flying > before

    def wrote(self, sock: Any, size: int) -> None:
        """Note what the program has written; let it wait if that is all it can before a look."""
        self.room -= size
        self.pieces -= 1
        if (self.room <= 0 or self.pieces <= 0) and self.choked is None:
            self.choked = ref(sock)
            self._size_buffer(sock, 0)

    @staticmethod
    def _size_buffer(sock: Any, size: int) -> None:
        with suppress(OSError, TypeError):  # nobody has it any more
            plain.setsockopt(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def _end(self, mark: Mark) -> None:
        self.ending = mark
        if mark is Mark.RST:
            self.flying -= sum(map(len, self.leaving))
            self.leaving.clear()
        self.network.wires.unwatch(self)
        if not self.network.sockets.is_laid(self):
            self._let_go()

    def _leaves_with_reset(self) -> bool:
        """Return whether this end, at its end, is one that the other learns of by a reset."""
        if self.network.sockets.is_laid(self):
            return False  # the program has shut down writing, but it has it still
        return bool(self.stuck) or self._has_no_linger()

    def _has_no_linger(self) -> bool:
        return self.settings.raw(socket.SOL_SOCKET, socket.SO_LINGER) == NO_LINGER

    def _let_go(self) -> None:
        """Forget what is of no use any more when no program has it open and all is taken."""
        self.drop_wire()
        is_first = not self.ended and self.ending is Mark.FIN
        self.host.ports.give_up(self, wait=is_first and self.has_given_name)

    def leave(self) -> None:
        """Put what was taken on its way."""
        other = self.other
        if other is None:  # pragma: no cover - it was abandoned in this very moment
            return
        if self.leaving:
            data = self.leaving[0] if len(self.leaving) == 1 else b"".join(self.leaving)
            self.leaving.clear()
            for piece in self.network.links.pieces(self.host.name, other.host.name, data):
                self._send(piece)
        if self.ending is not None and not self.has_left:
            self.has_left = True
            self._send(self.ending)
            self._drop_if_over()

    def _drop_if_over(self) -> None:
        """Close the wire once both directions have ended."""
        if self.ending is Mark.RST or (self.ending is not None and self.heard_all):
            self.drop_wire()

    def _send(self, item: Piece | Mark) -> None:
        self.sent += 1
        self._depart(self.sent, item)

    def _depart(self, number: int, item: Piece | Mark) -> None:
        other, network = self.other, self.network
        if other is None or not self.host.up:
            return
        fault = network.faults.between(self.host.name, other.host.name)
        if self.held or fault is not None:
            self._hold(number, item, fault)
            return
        size = 0 if isinstance(item, Mark) else len(item)
        when = network.links.arrival(self.host.name, other.host.name, size, network.now())
        self.arrives = max(self.arrives, when)
        network.at(self.arrives, self, self._arrive, number, item)

    def _hold(self, number: int, item: Piece | Mark, fault: Cause | None) -> None:
        """Keep back what cannot arrive now; nobody's silence makes the kernel give up."""
        network = self.network
        if fault is not None:
            fault.strike()
            network.held += 1
        if not self.held:
            network.wait_for_heal(self._resend)
        if item is not Mark.ACK:
            is_new = self.held_since is None
            is_waited_for = fault.kind == "hold" if fault else self.is_waited_for and not is_new
            if is_new or self.is_waited_for != is_waited_for:
                self.held_since = since = network.now()
                self.is_waited_for = is_waited_for
                if not is_waited_for:
                    network.at(since + self._patience(), self, self._give_up, since)
        insort(self.held, (number, item), key=_number)  # it may have been on its way before others

    def _patience(self) -> float:
        """Return for how long the kernel sends again what nobody acknowledges, in seconds."""
        option = self.settings.number(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        return option / 1000 if option else GIVES_UP_AFTER

    def _give_up(self, since: float) -> None:
        if self.held and self.held_since == since:
            self.held.clear()
            self.held_since = None
            self.reset(errno.ETIMEDOUT)

    def probe(self) -> None:
        """Let SO_KEEPALIVE run out, if it is set and the other end cannot be heard."""
        if self._hears() or not self.settings.number(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            return
        idle, interval, count = (
            self.settings.number(socket.IPPROTO_TCP, option) for option in KEEP_ALIVE
        )
        network = self.network
        network.at(network.now() + idle + interval * count, self, self._fall_silent)

    def _hears(self) -> bool:
        """Return whether it would hear from the other end, if that sent something."""
        other, cut = self.other, self.network.faults.between
        if self.state is not State.OPEN or other is None:
            return True
        fault = cut(self.host.name, other.host.name) or cut(other.host.name, self.host.name)
        return other.host.up and (fault is None or fault.kind == "hold")

    def _fall_silent(self) -> None:
        if not self._hears():
            self.reset(errno.ETIMEDOUT)

    def _resend(self) -> None:
        """Send again what was held, in its order; what cannot arrive yet is held again."""
        held, self.held = self.held, []
        for number, item in held:
            self._depart(number, item)
        if self.held:
            return  # it is as long as before that nobody acknowledges it
        self.held_since = None
        self.again = sorted({*self.again, *map(_number, held)})

    def _has_to_wait(self, number: int, item: Piece | Mark) -> bool:
        """Keep back what cannot arrive yet, and return whether that is so."""
        other, network = self.other, self.network
        assert other is not None  # noqa: S101 - it goes there
        if self.again and number in self.again:
            self.again.remove(number)
        fault = network.faults.between(self.host.name, other.host.name)
        if self.held or fault is not None or not other.host.up:
            self._hold(number, item, fault)
            return True
        if self.again and self.again[0] < number:  # what comes before was held, and arrives later
            insort(self.again, number)
            network.at(self.arrives, self, self._arrive, number, item)
            return True
        return False

    def _arrive(self, number: int, item: Piece | Mark) -> None:
        """Let something that was sent reach the other host."""
        other = self.other
        if other is None or self._has_to_wait(number, item):
            return
        if item is Mark.ACK:
            assert other.listener is not None  # noqa: S101 - it came from one
            other._accepted_at(other.listener)  # noqa: SLF001 - of this class
        else:
            self._deliver(other, item)

    def _deliver(self, other: Stream, item: Piece | Mark) -> None:
        """Let bytes, the end of them or a reset have arrived at the other end."""
        network = self.network
        network.delivered += 1
        size = 0 if isinstance(item, Mark) else len(item)
        what = item.name if isinstance(item, Mark) else f"{size} bytes"
        network.note(what, self.label(), other.label())
        if item is Mark.FIN:
            self.parted = other.wire is None  # else it is when what is ahead of it has room
        if item is Mark.RST:
            other.reset(errno.ECONNRESET)
        elif item is not Mark.FIN and other.deaf and other.ending is Mark.FIN:
            self.flying -= size  # Linux wants nothing more for who has ended both ways
            other._refuse()
            other.reset(errno.ECONNRESET)
        elif other.state is State.DEAD or other.wire is None:
            self.flying -= size
            if other.state is State.DEAD or item is not Mark.FIN:
                other._refuse()
        else:
            other.stuck.append(item)
            other.push()

    def _refuse(self) -> None:
        """Answer with a reset, as a host does that knows nothing of a connection."""
        if not self.open:
            self.host.ports.give_up(self)
        self.leaving.clear()
        self.has_left = True
        self._send(Mark.RST)

    # ---- what arrives ----

    def push(self) -> bool:
        """Give the program what has arrived, as far as it fits."""
        pushed = False
        while self.stuck and self.wire is not None:
            item = self.stuck[0]
            if isinstance(item, Mark):
                self.stuck.popleft()
                self.wire.shutdown(socket.SHUT_WR)
                self.heard_all = self.ended = True
                assert self.other is not None  # noqa: S101 - which has sent it
                self.other.parted = True
                self._drop_if_over()
                return True
            room = self._room(len(item))
            if not room:
                break
            try:
                sent = self.wire.send(item if room == len(item) else item[:room])
            except BlockingIOError:  # pragma: no cover - small pieces have filled the kernel first
                break
            except OSError as error:
                if self.deaf and self.network.sockets.is_laid(self):
                    sent = len(item)  # the program does not want it, and has not closed it
                else:  # pragma: no cover - as there
                    self._hang_up(error.errno)
                    break
            pushed = True
            self.pushed += sent
            # Blocks of memory are powers of two, of up to 32 KiB; and each piece has its header.
            self.wasted += min(sent, 16_384) + 1_024
            if sent == len(item):
                self.stuck.popleft()
            else:
                self.stuck[0] = item[sent:]
            self._arrived_here(sent)
        if self.stuck and self.wire is not None:
            self.network.wires.stuck[self.number] = self
        elif self.number in (stuck := self.network.wires.stuck):
            del stuck[self.number]
        return pushed

    # As a rule the wire tells of the end before something is pushed.
    def _hang_up(self, code: int | None) -> None:  # pragma: no cover
        """Tell the sender that the program has closed this end, for what the kernel says of it."""
        self.stuck.clear()
        if code != errno.ECONNRESET:  # it had read everything: its last words and the end go first
            self.take(ending=True)
            self.leave()
        if self.ending is not Mark.FIN:
            self._end(Mark.RST)
        self._refuse()

    def _room(self, size: int) -> int:
        """Return how many of so many bytes the kernel may have for the program now."""
        rate, now = self.host.read_rate, self.network.now()
        if rate is not None:
            if rate == 0 or now < self.reads_at:
                return 0
            size = min(size, max(1, int(rate * TICK)))
        room = self._room_in_kernel(size)
        if rate is not None and room:
            self.reads_at = now + room / rate
            self.network.at(self.reads_at, self, self.push)
        return room

    def has_read(self, size: int) -> None:
        """Note that the program has taken so many bytes from its kernel, by a call that we see."""
        self.pushed -= size
        if self.pushed <= 0:
            self.pushed = self.wasted = 0

    def _room_in_kernel(self, size: int) -> int:
        if self.pushed + size > UNREAD or self.wasted >= WASTE:
            self.pushed = self._unread()
            if not self.pushed:
                self.wasted = 0
            elif self.wasted >= WASTE:
                return 0
        return min(size, UNREAD - self.pushed)

    def _unread(self) -> int:
        """Return how many bytes the kernel keeps for the program."""
        if not self.network.sockets.is_laid(self):  # pragma: no cover - closed without a word
            return 0
        count = fcntl.ioctl(self._descriptor(), termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", count)[0])

    def _arrived_here(self, size: int) -> None:
        """Let the other end send more."""
        other = self.other
        assert other is not None  # noqa: S101 - it has sent this
        before = other.flying
        other.flying -= size
        if other.flying < WINDOW <= before and other.wire is not None and other.ending is None:
            self.network.wires.watch(other)

    # ---- the end ----

    def reset(self, error: int) -> None:
        """Break this end off: what its kernel has stays readable, then comes the error."""
        if self.wire is None or self.state is not State.OPEN:
            return
        self.error = errno.EPIPE if self.ended and error == errno.ECONNRESET else error
        if not self.told:
            self.state = State.FAILED  # for connect(), which tells of it
        self.stuck.clear()
        if self.network.sockets.is_laid(self):  # pragma: no branch - or closed without a word
            # A byte that the wire leaves unread makes the kernel reset the program. If there is no
            # room for it, the program has left some itself; if it has ended, it is not told.
            with suppress(OSError):
                os.write(self._descriptor(), b"!")
        self.drop_wire()

    def cut(self) -> bool:
        """Reset both ends, as something between them does; return whether it was a connection."""
        if self.state is not State.OPEN or self.wire is None or self.other is None:
            return False
        other = self.other
        self.reset(errno.ECONNRESET)
        if other.listener is not None:  # it was not told yet that there is a connection
            self._abandon()
        other.reset(errno.ECONNRESET)
        return True

    def drop_wire(self) -> None:
        """Close the network's end, which the program sees as the end."""
        if self.wire is not None:
            self.network.wires.unwatch(self)
        super().drop_wire()

    def closed(self) -> None:
        """Note that no program has it open any more."""
        is_unread = self.state is State.OPEN and bool(self.stuck or self._unread())
        super().closed()
        if self.state is State.OPEN:
            if self.ending is Mark.FIN:  # which was sent when the program has shut down writing
                if is_unread or self._has_no_linger():
                    self._end(Mark.RST)
                    self._refuse()
                self._let_go()
            elif self.wire is None:  # it was reset
                self.host.ports.give_up(self)
            return  # otherwise the wire says how it has ended
        self.host.ports.give_up(self)
        if self.state is State.LISTENING:
            self._stop_listening(State.DEAD)
        elif self.state in {State.CONNECTING, State.FAILED}:
            self.state = State.DEAD
            self._abandon()
            self.drop_wire()

    def _abandon(self) -> None:
        """Forget the other end of a connection that is not made after all."""
        other = self.other
        if other is not None and other.listener is not None:
            other.state = State.DEAD
            other.listener.expected -= 1
            self.other = None

    def _stop_listening(self, state: State) -> None:
        """Take no more connections."""
        self.state = state
        self.reads = False
        self._drop_backlog()
        self.drop_wire()

    def _drop_backlog(self) -> None:
        """Reset the connections that nobody will accept."""
        while self.backlog:
            stream = self.backlog.popleft()
            os.close(stream._descriptor())  # noqa: SLF001 - of this class
            stream.open = False
            stream.host.ports.give_up(stream)
            stream.host.endpoints.pop(stream.number, None)
            stream.state = State.DEAD
            stream._refuse()  # noqa: SLF001 - ditto
            stream.drop_wire()

    def die(self, *, silent: bool) -> None:
        """Note that its host is dead."""
        if self.state is State.OPEN:
            if not silent:
                self._refuse()
            self.reset(errno.ECONNRESET)
        elif self.state is State.LISTENING:
            self._drop_backlog()
        elif self.state is State.CONNECTING:
            self._settle(errno.ENETDOWN)
        self.state = State.DEAD

    def _descriptor(self) -> int:
        assert self.fd is not None  # noqa: S101 - it was laid
        return self.fd
