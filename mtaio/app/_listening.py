"""
Where a server listens: ``host:port``, ``unix:/path``, or ``fd://n`` for an inherited socket.

Promise: a socket that listens, or an error that names the address and the way out. A Unix socket
still in use by another server is left to it, and the file of ours is removed with the socket.

`Listening.disconnect` ends the connections accepted from it, to which neither the loops nor
hypercorn give access: a client that does not read would keep its connection open for ever.

`Listening.refuse` is what to call before it is closed. The system connects clients by itself, and
queues them until they are accepted; closing the socket would reset those that are in the queue.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import socket
import struct
import sys
from errno import EADDRINUSE
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mtaio._internal import checks
from mtaio.exceptions import ListenError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from typing import Self

__all__ = ["Bind", "Listening"]

_BOTH: Final = socket.SHUT_RDWR
_MAX_PORT: Final = 65535
_WAY_OUT: Final = (
    "Pass a host and a port, such as '127.0.0.1:8000' or '[::]:8000', a path, such as "
    "'unix:/run/app.sock', or a socket that this process has inherited, such as 'fd://3'."
)


# It needs no descriptor of its own, of which there may be none left.
_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)

_SO_ATTACH_FILTER: Final = 26
_NO_SYN: Final = (
    (0x30, 0, 0, 13),  # ldb [13]: the flags in the header of TCP
    (0x45, 0, 1, 0x02),  # jset #SYN
    (0x06, 0, 0, 0),  # ret #0: the packet is dropped
    (0x06, 0, 0, 0xFFFFFFFF),  # ret #-1: it is kept
)
"""Linux's classic BPF, see packet(7) and socket(7): which packets a listening socket sees."""


class Bind(NamedTuple):
    """What ``bind`` says, of which one is set: the path, the descriptor, or host and port."""

    text: str
    """As it was given."""
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int | None = None

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return what ``value`` says, or raise what is wrong with it."""
        if not isinstance(value, str):
            msg = f"bind={value!r} is {checks.type_of(value)}, not a str. {_WAY_OUT}"
            raise TypeError(msg)
        scheme, _, rest = value.partition(":")
        if scheme == "unix":
            if not rest:
                msg = f"bind={value!r} names no path. {_WAY_OUT}"
                raise ValueError(msg)
            return cls(value, path=rest)
        if scheme == "fd":
            number = rest.removeprefix("//")
            if not (rest.startswith("//") and number.isascii() and number.isdigit()):
                msg = f"bind={value!r} names no file descriptor. {_WAY_OUT}"
                raise ValueError(msg)
            return cls(value, fd=int(number))
        host, _, port = value.rpartition(":")
        if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
            msg = f"bind={value!r} does not end in a port from 0 to {_MAX_PORT}. {_WAY_OUT}"
            raise ValueError(msg)
        if not host:
            msg = f"bind={value!r} has no host. {_WAY_OUT}"
            raise ValueError(msg)
        return cls(value, host=host.removeprefix("[").removesuffix("]"), port=int(port))


class Listening:
    """
    A socket that listens; made where `ListenError` can be raised.

    Args:
        bind: Where.
        backlog: How many connections the system keeps until they are accepted.
        umask: The umask with which the file of a Unix socket is made, None for that of the process.
        owner: The user and group that the file then belongs to, None for those of the process.

    Attributes:
        socket: The socket.
        inherited: Whether it was there before, so that others may accept from it too.
        address: Where it listens, with the real port in place of 0.
    """

    __slots__ = ("_file", "_local", "_path", "address", "inherited", "socket")

    def __init__(
        self,
        bind: Bind,
        *,
        backlog: int = 100,
        umask: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._path = bind.path
        self.inherited: Final = bind.fd is not None
        self._file: tuple[int, int] | None = None
        try:
            self.socket: Final = _opened(bind)
            try:
                if bind.path:
                    self._file = _bind_path(self.socket, bind.path, umask, owner)
                elif bind.fd is None:
                    self.socket.bind((bind.host, bind.port))
                self.socket.listen(backlog)
                self.socket.setblocking(False)  # noqa: FBT003 - its only argument
                self._local: Final[Any] = self.socket.getsockname()
            except BaseException:
                self.close()
                raise
        except (OSError, OverflowError) as error:
            raise _refusal(bind, error) from None
        self.address: Final = _text(self._local)

    def close(self) -> None:
        """Close it, and remove the file of a Unix socket if it is this one's."""
        self.socket.close()
        self._remove_file()

    def _remove_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                if _identity(self._path) == self._file:
                    Path(self._path).unlink()
            self._file = None

    def refuse(self) -> None:
        """
        Let nobody join the queue of connections, while those in it can still be accepted.

        Who tries at a Unix socket finds no file. On Linux, who tries over TCP hears nothing, and
        tries again after a second, when the socket is closed and that is refused. On other systems
        they go on joining. So they do where the socket was inherited: then others may have it too.
        """
        self._remove_file()
        if sys.platform == "linux" and not (self.inherited or self._path):
            code = b"".join(struct.pack("HBBI", *each) for each in _NO_SYN)
            kept = ctypes.create_string_buffer(code)
            program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(kept))
            with contextlib.suppress(OSError):  # a sandbox that knows no filters
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def has_queue(self) -> bool:
        """Return whether there are connections that were not accepted yet."""
        with _Selector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            return bool(selector.select(0))

    def disconnect(self, keep: Container[object] = (), *, how: int = _BOTH) -> int:
        """
        Shut down this process's connections that came in here, and return how many there were.

        Their owners see them end, as if the client had gone; with ``socket.SHUT_RD`` they see that
        it has nothing more to say, and can still send. Does nothing where the descriptors of the
        process are in no folder, as on Windows.

        Args:
            keep: The addresses and ports of clients whose connections stay.
            how: As for ``socket.shutdown``.
        """
        count = 0
        for connection in _sockets():
            with connection, contextlib.suppress(OSError):
                if self._accepted(connection):
                    peer = connection.getpeername()
                    if peer[:2] not in keep:
                        connection.shutdown(how)
                        count += 1
        return count

    def _accepted(self, connection: socket.socket) -> bool:
        """Return whether a socket is a connection that was accepted here."""
        if connection.family != self.socket.family or connection.type != socket.SOCK_STREAM:
            return False
        local: Any = connection.getsockname()
        same = local == self._local
        if not isinstance(self._local, str | bytes):
            host, port = self._local[:2]
            everywhere = host in {"0.0.0.0", "::"}  # noqa: S104 - compared
            same = local[1] == port and (everywhere or local[0] == host)
        return bool(same) and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def _opened(bind: Bind) -> socket.socket:
    """Return the socket, which is not bound yet unless it was there."""
    if bind.fd is not None:
        # A duplicate: the number stays valid for the next run, and for other users of it.
        return _stream(os.dup(bind.fd))
    if sys.platform != "win32" and bind.path:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened = socket.socket(socket.AF_INET6 if ":" in bind.host else socket.AF_INET)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, _ONE_LISTENER, 1)
    if bind.host == "::":
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return opened


# The port is free as soon as it is closed; on Windows that needs no option, and SO_REUSEADDR would
# let two listen at once.
if sys.platform == "win32":  # pragma: no cover - Windows
    _ONE_LISTENER: Final = socket.SO_EXCLUSIVEADDRUSE
else:
    _ONE_LISTENER: Final = socket.SO_REUSEADDR


def _stream(descriptor: int) -> socket.socket:
    """Return the stream socket that a descriptor is, which it then owns."""
    try:
        opened = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    if opened.type != socket.SOCK_STREAM:
        opened.close()
        msg = "it is not a stream socket"
        raise OSError(None, msg)
    return opened


def _bind_path(
    opened: socket.socket, path: str, umask: int | None, owner: tuple[int, int] | None
) -> tuple[int, int]:
    """Bind to a path, from which a socket that nobody answers goes; return which file it is."""
    if sys.platform == "win32":  # pragma: no cover - Windows, where nothing is bound to a path
        return 0, 0
    with contextlib.suppress(FileNotFoundError):
        if Path(path).is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.setblocking(False)  # noqa: FBT003 - its only argument
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    Path(path).unlink()
                except BlockingIOError:  # its backlog is full: somebody listens
                    raise OSError(EADDRINUSE, os.strerror(EADDRINUSE)) from None
                else:
                    raise OSError(EADDRINUSE, os.strerror(EADDRINUSE))
    before = None if umask is None else os.umask(umask)
    try:
        opened.bind(path)
    finally:
        if before is not None:
            os.umask(before)
    if owner is not None:
        os.chown(path, *owner)
    return _identity(path)


def _identity(path: str) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_dev, found.st_ino


def _refusal(bind: Bind, error: OSError | OverflowError) -> ListenError:
    """Return what is raised where it cannot listen."""
    if bind.fd is not None:
        way_out = (
            "Pass the number of a listening socket that this process has inherited: systemd's "
            "first is 3."
        )
    elif bind.path:
        way_out = (
            "Choose a path that no other server uses, in a folder that this user can write to."
        )
    else:
        way_out = "Choose an address of this machine and a port that is free; port 0 takes any."
    errno, reason = (
        (error.errno, error.strerror) if isinstance(error, OSError) else (None, str(error))
    )
    return ListenError(errno, f"cannot listen at {bind.text}: {reason}. {way_out}")


def _text(local: Any) -> str:
    """Return the text of what a socket is bound to."""
    if isinstance(local, str | bytes):
        return f"unix:{os.fsdecode(local)}"
    host, port = local[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sockets() -> Iterator[socket.socket]:
    """Yield a duplicate of each socket of this process."""
    try:
        names = os.listdir("/dev/fd")  # noqa: PTH208 - at once: what is opened meanwhile is not ours
    except OSError:  # there is no such folder
        return
    for name in names:
        with contextlib.suppress(OSError):  # it is no socket, or was closed meanwhile
            descriptor = os.dup(int(name))
            try:
                found = socket.socket(fileno=descriptor)
            except OSError:
                os.close(descriptor)
                continue
            yield found
