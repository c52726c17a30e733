"""
What stands in the place of ``socket.socket``'s methods while a network is open.

The methods are replaced in place, so that the type stays the same for everybody who has got hold of
it. In other threads than the event loop's, and for descriptors that are not simulated, they call
the real ones.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from mtaio.testing._network._datagram import HEAD, NOBODY, Datagram, unpacked
from mtaio.testing._network._endpoint import Endpoint, error_of
from mtaio.testing._network._stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.testing._network._core import Core
    from mtaio.testing._network._machine import Life

__all__ = ["Sockets"]

_STREAM: Final = socket.SOCK_STREAM
_KINDS: Final[dict[int, type[Stream | Datagram]]] = {
    socket.SOCK_STREAM: Stream,
    socket.SOCK_DGRAM: Datagram,
}

_real_init: Final[Any] = socket.socket.__init__
_real_close: Final[Any] = socket.socket._real_close  # type: ignore[attr-defined] # noqa: SLF001
LOOKUPS: Final = (
    "getaddrinfo",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
)
"""The functions of the module that ask for names; `Names` has one for each."""

REPLACED: Final = (
    "_accept",
    "bind",
    "connect",
    "connect_ex",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
    "send",
    "sendall",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
)
"""The methods that programs call, but for those that make and close a socket."""

_REAL: Final[dict[str, Any]] = {name: getattr(socket.socket, name) for name in REPLACED}

_BLOCKING: Final = (
    "a blocking socket would stop the event loop, and the simulated network with it. Use an async "
    "client, or call this in a worker thread, which has the real network."
)
_OTHER_THREAD: Final = (
    "{}() in a worker thread: this socket is simulated, and belongs to the event loop's thread. "
    "Make sockets in the thread that uses them, where they are real."
)
_UNIX: Final = (
    "Unix sockets are not simulated: hosts have no files in common. Use TCP between hosts, or "
    "connect in a worker thread, which has the real machine."
)


class Sockets:
    """
    The simulated sockets of a network, found by their descriptors.

    Args:
        network: Their network.
    """

    # Invariants:
    # - _open has a descriptor for each socket that a program has open, duplicates included;
    # - _inodes finds an endpoint by what its descriptor stands for, so that duplicates are known
    #   and a descriptor that stands for something else by now is not touched;
    # - _lookups has what was there before ours;
    # - _objects finds the latest of Python's objects for a descriptor.
    __slots__ = ("_inodes", "_lookups", "_network", "_objects", "_open", "_thread", "orphans")

    def __init__(self, network: Core) -> None:
        self._network = network
        self._open: dict[int, Endpoint] = {}
        self._inodes: dict[int, Endpoint] = {}
        self.orphans: list[socket.socket] = []
        """Those of programs that were killed; they may close them still."""
        self._objects: dict[int, ref[socket.socket]] = {}
        self._lookups: dict[str, Any] = {}
        self._thread = threading.get_ident()

    # ---- which sockets there are ----

    def number(self, fd: int) -> int:
        """Return the place of a descriptor among all sockets; 0 if it is not simulated."""
        endpoint = self._open.get(fd)
        return 0 if endpoint is None else endpoint.number

    def find(self, fd: int) -> Endpoint | None:
        """Return what a descriptor stands for, None if it is not simulated."""
        return self._open.get(fd)

    def here(self) -> bool:
        """Return whether this is the thread of the network's event loop."""
        return threading.get_ident() == self._thread

    def laid(self, endpoint: Endpoint) -> None:
        """Note that the descriptor of an endpoint stands for something else now."""
        assert endpoint.fd is not None  # noqa: S101 - it has one now
        self._remember(endpoint, endpoint.fd)

    def _remember(self, endpoint: Endpoint, fd: int) -> None:
        self._inodes.pop(endpoint.inode, None)
        endpoint.inode = os.fstat(fd).st_ino
        self._inodes[endpoint.inode] = endpoint

    def _give(self, fd: int, endpoint: Endpoint) -> None:
        """Note that a program has a descriptor of an endpoint."""
        self._open[fd] = endpoint
        endpoint.descriptors.add(fd)

    def _take(self, fd: int) -> Endpoint | None:
        """Note that no program has a descriptor any more; return what it stood for."""
        endpoint = self._open.pop(fd, None)
        if endpoint is None:
            return None
        endpoint.descriptors.discard(fd)
        if endpoint.fd == fd and endpoint.descriptors:
            endpoint.fd = min(endpoint.descriptors)
        return endpoint

    def is_laid(self, endpoint: Endpoint) -> bool:
        """Return whether its descriptor still is its own; it may be closed behind our back."""
        if not endpoint.open or endpoint.fd is None:
            return False
        try:
            inode = os.fstat(endpoint.fd).st_ino
        except OSError:
            return False
        return self._inodes.get(inode) is endpoint

    def accepted(self, endpoint: Endpoint) -> None:
        """Note that a program gets a connection now."""
        assert endpoint.fd is not None  # noqa: S101 - it was laid
        self._give(endpoint.fd, endpoint)

    def endpoints(self) -> list[Endpoint]:
        """Return all that programs have open, in the order in which they were made."""
        found = {endpoint.number: endpoint for endpoint in self._open.values()}
        return [
            found[number]
            for number in sorted(found)
            if found[number].open and not found[number].life.over and self.is_laid(found[number])
        ]

    def receive(self, sock: Any, size: int) -> bytes:
        """Take bytes from a descriptor, as the kernel has them."""
        data: bytes = _REAL["recv"](sock, size)
        return data

    # ---- what programs call ----

    def made(self, sock: socket.socket, fileno: int | None) -> None:
        """Note a socket that was made in the event loop's thread."""
        fd = sock.fileno()
        self._objects[fd] = ref(sock)
        if fileno is not None:
            self.leave_alone(fd)
            known = self._open.get(fd)
            if known is None:
                known = self._inodes.get(os.fstat(fd).st_ino)
                if known is not None and known.open:
                    self._give(fd, known)
                    known.duplicated = True
            return
        stale = self._take(fd)
        if stale is not None and not stale.descriptors:
            stale.closed()  # without a word, as the garbage collector does
        kind = _KINDS.get(sock.type)
        if kind is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
            return
        if sock.family == socket.AF_INET6:
            _real_close(sock)
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        life = self._network.here()
        endpoint = kind(self._network, life, fd)
        self._give(fd, endpoint)
        if endpoint.wire is None:
            self._remember(endpoint, fd)
        endpoint.host.endpoints[endpoint.number] = endpoint

    def orphan(self, life: Life) -> None:
        """Keep what a killed program has open, until the network closes it as a kernel would."""
        for fd, endpoint in self._open.items():
            sock = self._objects[fd]() if endpoint.life is life and fd in self._objects else None
            if sock is not None:
                self.orphans.append(sock)

    def kind_of(self, fd: int) -> tuple[int, int, int]:
        """
        Return the family, type and protocol of a simulated socket, else to ask the kernel.

        Raises:
            OSError: It is one of another host. A program that goes through all that a process has,
                such as a server that ends what is left of its connections, has no business there.
        """
        known = None
        with suppress(OSError, OverflowError, TypeError):
            known = self._open.get(fd) or self._inodes.get(os.fstat(fd).st_ino)
        if known is None or not known.open:
            return -1, -1, -1
        if known.host is not self._network.here().where:
            raise error_of(errno.EBADF)
        return socket.AF_INET, known.KIND, known.PROTOCOL

    def closing(self, fd: int) -> None:
        """Note that a program closes a descriptor."""
        endpoint = self._take(fd)
        if endpoint is not None and not endpoint.descriptors:
            endpoint.closed()
            self._inodes.pop(endpoint.inode, None)

    def leave_alone(self, fd: int) -> None:
        """Note that another thread has a descriptor, which was perhaps closed behind our back."""
        endpoint = self._open.get(fd)
        if endpoint is not None and not self.is_laid(endpoint):
            self._take(fd)

    # ---- while the network is open ----

    def replace(self) -> None:
        """Put our methods in the place of the real ones."""
        _replacing.add(self)
        kind: Any = socket.socket
        kind.__init__ = self._init()
        kind._real_close = self._close()  # noqa: SLF001 - socket.close() calls it
        for name in LOOKUPS:
            self._lookups[name] = getattr(socket, name)  # a test may have replaced it before
            setattr(socket, name, self._lookup(name))
        for name, ours in _OURS.items():
            setattr(kind, name, self._method(name, ours))
        for name in ("recv", "recv_into"):
            setattr(kind, name, self._reading(name))
        kind.send = self._sending()

    def restore(self) -> None:
        """Put the real methods back."""
        _replacing.discard(self)
        kind: Any = socket.socket
        kind.__init__ = _real_init
        kind._real_close = _real_close  # noqa: SLF001 - ditto
        for name, before in self._lookups.items():
            setattr(socket, name, before)
        for name in _REAL:
            delattr(kind, name)  # what is there then is inherited from the class in C
        self._open.clear()
        self._inodes.clear()
        self._objects.clear()
        self.orphans.clear()

    def _init(self) -> Callable[..., None]:
        def __init__(  # noqa: N807 - the signature of the real one
            sock: Any,
            family: int = -1,
            type: int = -1,  # noqa: A002 - ditto
            proto: int = -1,
            fileno: int | None = None,
        ) -> None:
            if family == type == proto == -1 and fileno is not None and self.here():
                family, type, proto = self.kind_of(fileno)  # noqa: A001 - the name of the real one
            _real_init(sock, family, type, proto, fileno)
            if self.here():
                self.made(sock, fileno)
            else:
                self.leave_alone(sock.fileno())

        return __init__

    def _close(self) -> Callable[..., None]:
        def _real_close_(sock: Any, *args: Any) -> None:
            self.closing(sock.fileno())
            _real_close(sock, *args)

        return _real_close_

    def _lookup(self, name: str) -> Callable[..., Any]:
        real, ours = self._lookups[name], getattr(self._network.names, name)

        def lookup(*args: Any, **kwargs: Any) -> Any:
            return (ours if self.here() else real)(*args, **kwargs)

        lookup.__name__ = name
        return lookup

    def _method(self, name: str, ours: Callable[..., Any]) -> Callable[..., Any]:
        real, found = _REAL[name], self._open

        def method(sock: Any, *args: Any, **kwargs: Any) -> Any:
            endpoint = found.get(sock.fileno())
            if endpoint is None:
                if name in _UNIX_METHODS and sock.family == socket.AF_UNIX and self.here():
                    msg = f"{name}({', '.join(map(repr, args))}) on a simulated network: {_UNIX}"
                    raise RuntimeError(msg)
                return real(sock, *args, **kwargs)
            if not self.here():
                raise RuntimeError(_OTHER_THREAD.format(name))
            return ours(endpoint, sock, *args, **kwargs)

        method.__name__ = name
        return method

    def _reading(self, name: str) -> Callable[..., Any]:
        """Return a method that asks the kernel at once, where it is for a stream to answer."""
        real, ours, found = _REAL[name], _OURS[name], self._open
        counts = name == "recv_into"
        nothing = 0 if counts else b""

        def method(sock: Any, *args: Any, **kwargs: Any) -> Any:
            endpoint: Any = found.get(sock.fileno())
            if endpoint is None:
                return real(sock, *args, **kwargs)
            if endpoint.KIND != _STREAM or not endpoint.reads or sock.gettimeout() != 0:
                return ours(endpoint, sock, *args, **kwargs)
            try:
                got = real(sock, *args, **kwargs)
            except OSError as error:  # raised again here, so that it makes no circle with a frame
                code = endpoint.read_failed(error.errno)
                if code == error.errno:
                    raise
                if code:
                    raise error_of(code) from None
                return nothing
            if not got:
                return _ended(endpoint, got) if endpoint.error and (not args or args[0]) else got
            if len(args) == 1 and not kwargs:  # and so no flags that leave it there
                endpoint.has_read(got if counts else len(got))
            return got

        method.__name__ = name
        return method

    def _sending(self) -> Callable[..., Any]:
        """Return the ``send`` that does the same, and that keeps to what the kernel may have."""
        real, found = _REAL["send"], self._open

        def send(sock: Any, data: Any, *flags: int) -> Any:
            endpoint: Any = found.get(sock.fileno())
            if endpoint is None:
                return real(sock, data, *flags)
            if endpoint.KIND != _STREAM or sock.gettimeout() != 0:
                return _send(endpoint, sock, data, *flags)
            size = data.nbytes if isinstance(data, memoryview) else len(data)
            try:
                if size > endpoint.room > 0:
                    data = _octets(data)[: endpoint.room]
                sent = real(sock, data, *flags)
            except OSError as error:
                code = endpoint.write_failed(error.errno)
                if code == error.errno:
                    raise
                raise error_of(code) from None
            endpoint.wrote(sock, sent)
            return sent

        return send


_replacing: Final[set[Sockets]] = set()
"""Those that have replaced the methods: one at most."""


def _after_fork() -> None:
    """Give a forked child the real network: it must not stir in its parent's."""
    for sockets in tuple(_replacing):
        sockets.restore()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_after_fork)


_UNIX_METHODS: Final = frozenset({"bind", "connect", "connect_ex", "listen"})


def _octets(data: Any) -> Any:
    """Return a view of the bytes of a buffer."""
    return memoryview(data).cast("B")


# ---- each method, for a simulated socket ---------------------------------------------------------


def _refuse_blocking(sock: Any, name: str) -> None:
    if sock.gettimeout() != 0:
        msg = f"{name}() of a socket with timeout {sock.gettimeout()!r}: {_BLOCKING}"
        raise RuntimeError(msg)


def _connect_ex(endpoint: Any, sock: Any, address: Any) -> int:
    if endpoint.KIND == socket.SOCK_STREAM:
        _refuse_blocking(sock, "connect")
    code: int = endpoint.connect(address)
    return code


def _connect(endpoint: Any, sock: Any, address: Any) -> None:
    code = _connect_ex(endpoint, sock, address)
    if code:
        raise error_of(code)


def _accept(endpoint: Any, sock: Any) -> Any:
    _refuse_blocking(sock, "accept")
    return endpoint.accept(sock)


def _bind(endpoint: Any, _: Any, address: Any) -> None:
    endpoint.bind(address)


def _listen(endpoint: Any, _: Any, *backlog: int) -> None:
    endpoint.listen(*backlog)


def _getsockname(endpoint: Any, _: Any) -> Any:
    return endpoint.getsockname()


def _getpeername(endpoint: Any, _: Any) -> Any:
    return endpoint.getpeername()


def _getsockopt(endpoint: Any, _: Any, *args: Any) -> Any:
    return endpoint.getsockopt(*args)


def _setsockopt(endpoint: Any, _: Any, *args: Any) -> Any:
    return endpoint.setsockopt(*args)


def _shutdown(endpoint: Any, sock: Any, how: int) -> None:
    endpoint.shutdown(how, partial(_REAL["shutdown"], sock))


# ---- sending ----


def _write(name: str, endpoint: Stream, sock: Any, *args: Any) -> Any:
    """Send on a stream, as the kernel does; say why it failed, as TCP does."""
    if sock.gettimeout() != 0:
        _refuse_blocking(sock, name)
    try:
        sent = _REAL[name](sock, *args)
    except OSError as error:
        code = endpoint.write_failed(error.errno)
        if code == error.errno:
            raise
        raise error_of(code) from None
    endpoint.wrote(sock, len(args[0]) if sent is None else sent)
    return sent


def _send(endpoint: Any, sock: Any, data: Any, *flags: int) -> Any:
    if isinstance(endpoint, Datagram):
        return endpoint.send(data)
    return _write("send", endpoint, sock, data, *flags)


def _sendall(endpoint: Any, sock: Any, data: Any, *flags: int) -> None:
    if isinstance(endpoint, Datagram):
        endpoint.send(data)
    else:
        _write("sendall", endpoint, sock, data, *flags)


def _sendto(endpoint: Any, sock: Any, data: Any, *args: Any) -> Any:
    if isinstance(endpoint, Datagram):
        return endpoint.send(data, _address("sendto", args[-1]))
    return _write("send", endpoint, sock, data, *args[:-1])  # TCP has no use for the address


def _sendmsg(endpoint: Any, sock: Any, buffers: Any, *args: Any) -> Any:
    if isinstance(endpoint, Datagram):
        address = args[2] if len(args) > len(("ancillary data", "flags")) else None
        return endpoint.send(b"".join(buffers), address)
    return _write("sendmsg", endpoint, sock, buffers, *args[:2])


def _address(call: str, address: Any) -> Any:
    if address is None:
        msg = f"{call}(): AF_INET address must be tuple, not NoneType"
        raise TypeError(msg)
    return address


# ---- receiving ----


def _read(name: str, endpoint: Stream, sock: Any, nothing: Any, *args: Any) -> Any:
    """Receive on a stream, as the kernel does; say why that failed, or has ended, as TCP does."""
    if sock.gettimeout() != 0:
        _refuse_blocking(sock, name)
    if not endpoint.reads:
        raise error_of(errno.ENOTCONN)
    try:
        return _REAL[name](sock, *args)
    except OSError as error:
        code = endpoint.read_failed(error.errno)
        if code == error.errno:
            raise
        if code:
            raise error_of(code) from None
    return nothing  # pragma: no cover - it has read the end already


def _ended(endpoint: Stream, got: Any) -> Any:
    """Return the end that the kernel has told, or raise what TCP tells."""
    code = endpoint.read_failed(0)
    if code:
        raise error_of(code)
    return got  # pragma: no cover - it has read the end already


def _packet(name: str, endpoint: Datagram, sock: Any, flags: int) -> tuple[bytes, Any]:
    """Receive a datagram and the address of its sender."""
    _refuse_blocking(sock, name)
    error = endpoint.take_error()
    if error:
        raise error_of(error)
    while True:
        packet = _REAL["recv"](sock, 65536 + HEAD.size, flags)
        if not packet:  # its host is dead
            raise error_of(errno.ENETDOWN)
        if packet != NOBODY:
            return unpacked(packet)
        if flags & socket.MSG_PEEK:
            _REAL["recv"](sock, 1)
        # That nobody is there was told already, or another error was.


def _recv(endpoint: Any, sock: Any, size: int, flags: int = 0) -> Any:
    if isinstance(endpoint, Datagram):
        return _packet("recv", endpoint, sock, flags)[0][:size] if size else b""
    got = _read("recv", endpoint, sock, b"", size, flags)
    return got if got or not endpoint.error or not size else _ended(endpoint, got)


def _recvfrom(endpoint: Any, sock: Any, size: int, flags: int = 0) -> Any:
    if isinstance(endpoint, Datagram):
        data, address = _packet("recvfrom", endpoint, sock, flags)
        return data[:size], address
    return _recv(endpoint, sock, size, flags), None


def _recv_into(endpoint: Any, sock: Any, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
    if isinstance(endpoint, Datagram):
        return _recvfrom_into(endpoint, sock, buffer, nbytes, flags)[0]
    got = _read("recv_into", endpoint, sock, 0, buffer, nbytes, flags)
    return got if got or not endpoint.error else _ended(endpoint, got)


def _recvfrom_into(endpoint: Any, sock: Any, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
    if isinstance(endpoint, Datagram):
        view = memoryview(buffer).cast("B")[: nbytes or None]
        data, address = _packet("recvfrom_into", endpoint, sock, flags)
        size = min(len(data), len(view))
        view[:size] = data[:size]
        return size, address
    return _recv_into(endpoint, sock, buffer, nbytes, flags), None


def _recvmsg(endpoint: Any, sock: Any, size: int, ancillary: int = 0, flags: int = 0) -> Any:
    if isinstance(endpoint, Datagram):
        data, address = _packet("recvmsg", endpoint, sock, flags)
        return data[:size], [], int(socket.MSG_TRUNC) if len(data) > size else 0, address
    got = _read("recvmsg", endpoint, sock, (b"", [], 0, None), size, ancillary, flags)
    return got if got[0] or not endpoint.error else _ended(endpoint, got)


def _recvmsg_into(endpoint: Any, sock: Any, buffers: Any, *args: int) -> Any:
    if isinstance(endpoint, Datagram):
        views = [memoryview(each).cast("B") for each in buffers]
        flags = args[1] if len(args) > 1 else 0
        data, rest, flags, address = _recvmsg(endpoint, sock, sum(map(len, views)), 0, flags)
        left = memoryview(data)
        for view in views:
            view[: len(left)] = left[: len(view)]
            left = left[len(view) :]
        return len(data), rest, flags, address
    got = _read("recvmsg_into", endpoint, sock, (0, [], 0, None), buffers, *args)
    return got if got[0] or not endpoint.error else _ended(endpoint, got)


_OURS: Final[dict[str, Callable[..., Any]]] = {
    "_accept": _accept,
    "bind": _bind,
    "connect": _connect,
    "connect_ex": _connect_ex,
    "getpeername": _getpeername,
    "getsockname": _getsockname,
    "getsockopt": _getsockopt,
    "listen": _listen,
    "recv": _recv,
    "recv_into": _recv_into,
    "recvfrom": _recvfrom,
    "recvfrom_into": _recvfrom_into,
    "recvmsg": _recvmsg,
    "recvmsg_into": _recvmsg_into,
    "send": _send,
    "sendall": _sendall,
    "sendmsg": _sendmsg,
    "sendto": _sendto,
    "setsockopt": _setsockopt,
    "shutdown": _shutdown,
}
