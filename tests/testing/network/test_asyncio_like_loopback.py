"""What asyncio has for the network: simulated, it is like on the loopback."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
import tempfile
from functools import partial
from typing import Any

from tests.testing.network.loopback import LIMIT, Address, Stage, like_loopback, told

ABORT = struct.pack("ii", 1, 0)
BIG = hashlib.shake_128().digest(2_000_000)


def digest(data: bytes) -> object:
    """Return what tells data from other data, and is short."""
    return data if len(data) < 100 else (len(data), hashlib.sha256(data).hexdigest())


in_asyncio = partial(like_loopback, only="asyncio")

Handler = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


async def serve(stage: Stage, handler: Any, **options: Any) -> tuple[asyncio.Server, Address]:
    """Start a server of streams; return it and its address."""
    with stage.server():
        server = await asyncio.start_server(handler, stage.address, 0, **options)
    address: Address = server.sockets[0].getsockname()
    return server, address


async def over(server: asyncio.Server) -> None:
    """Close a server, and wait for it."""
    server.close()
    await asyncio.wait_for(server.wait_closed(), LIMIT)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a stream, and wait for it."""
    writer.close()
    await writer.wait_closed()


def abort(writer: asyncio.StreamWriter) -> None:
    """Close a stream with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    writer.transport.abort()


# ---- streams -------------------------------------------------------------------------------------


@in_asyncio()
async def test_streams(stage: Stage) -> None:
    """Lines go both ways, and the end of one is no end of the other."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.write(b"bye\n")
        await closed(writer)

    accepted: list[asyncio.StreamWriter] = []
    server, address = await serve(stage, echo)
    reader, writer = await asyncio.open_connection(*address)
    stage.see("peer", writer.get_extra_info("peername") == address)
    stage.see("name", stage.host(writer.get_extra_info("sockname")[0]))
    sock = writer.get_extra_info("socket")
    stage.see("socket", (sock.family, sock.type, sock.proto, sock.gettimeout()))
    stage.see("no delay", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    writer.writelines([b"one\n", b"two\n"])
    await stage.wait("line", reader.readline)
    stage.see("server's peer", stage.host(accepted[0].get_extra_info("peername")[0]))
    stage.see("server's name", accepted[0].get_extra_info("sockname") == address)
    await stage.wait("exactly", reader.readexactly, 4)
    writer.write(b"three\n")
    stage.see("can", writer.can_write_eof())
    writer.write_eof()
    await stage.wait("until", reader.readuntil, b"\n")
    await stage.wait("the rest", reader.read)
    await stage.wait("after the end", reader.read, 10)
    stage.see("at the end", reader.at_eof())
    await stage.wait("too much", reader.readexactly, 3)
    await stage.wait("closed", closed, writer)
    await over(server)


@in_asyncio()
async def test_connections_are_refused(stage: Stage) -> None:
    """The error names who refused."""
    closed_there = stage.bound()
    await stage.wait("open", asyncio.open_connection, *closed_there.getsockname())
    loop = asyncio.get_running_loop()
    await stage.wait("sock_connect", loop.sock_connect, stage.near(), closed_there.getsockname())
    await stage.wait(
        "happy eyeballs",
        asyncio.open_connection,
        *closed_there.getsockname(),
        happy_eyeballs_delay=0.01,
    )


@in_asyncio(apart=False)
async def test_names_are_tried_in_turn(stage: Stage) -> None:
    """A name that stands for several addresses is refused only if all of them refuse."""
    server, address = await serve(stage, answer)
    for delay in (None, 0.25):
        for name in ("localhost", "127.0.0.1", "0.0.0.0"):  # noqa: S104
            reader, writer = await asyncio.open_connection(
                name, address[1], happy_eyeballs_delay=delay
            )
            await stage.wait(f"{name} {delay}", reader.read)
            await closed(writer)
    await over(server)
    for delay in (None, 0.25):
        await stage.wait(
            f"refused {delay}",
            asyncio.open_connection,
            "localhost",
            address[1],
            happy_eyeballs_delay=delay,
            family=socket.AF_INET,
        )


async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say something, and close."""
    writer.write(b"answer")
    await closed(writer)


@in_asyncio()
async def test_a_local_address(stage: Stage) -> None:
    """A client can choose where it connects from, if that is its own and free."""
    server, address = await serve(stage, answer)
    mine = stage.ours[0]
    for local in ((mine, 0), ("0.0.0.0", 0), ("192.0.2.1", 0)):  # noqa: S104
        try:
            reader, writer = await asyncio.open_connection(*address, local_addr=local)
        except OSError as error:
            stage.see("error", told(error))
            continue
        stage.see("name", stage.host(writer.get_extra_info("sockname")[0]))
        await stage.wait("read", reader.read)
        await closed(writer)
    taken = stage.near()
    taken.bind((mine, 0))
    await stage.wait("taken", asyncio.open_connection, *address, local_addr=taken.getsockname())
    await over(server)


@in_asyncio()
async def test_reset_streams(stage: Stage) -> None:
    """A reset fails who reads, and who writes, drains and closes after it."""
    writers: list[asyncio.StreamWriter] = []

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server, address = await serve(stage, hold)
    for what in ("read", "drain"):
        reader, writer = await asyncio.open_connection(*address)
        while not writers:
            await stage.pause()
        abort(writers.pop())
        if what == "read":
            await stage.wait("read", reader.read, 10)
            await stage.wait("read", reader.read, 10)
            stage.see("at the end", reader.at_eof())
            stage.see("exception", told(reader.exception() or ValueError()))
        else:
            await stage.pause()
        writer.write(b"anybody?")
        await stage.wait("drain", writer.drain)
        stage.see("closing", writer.is_closing())
        await stage.wait("closed", closed, writer)
    await over(server)


@in_asyncio()
async def test_write_to_a_closed_stream(stage: Stage) -> None:
    """The peer has closed: the end, and at last a broken pipe."""
    server, address = await serve(stage, answer)
    reader, writer = await asyncio.open_connection(*address)
    await stage.wait("read", reader.read)
    for number in range(3):
        writer.write(b"anybody?")
        await stage.wait(f"drain {number}", writer.drain)
        await stage.pause()
    await stage.wait("closed", closed, writer)
    await over(server)


@in_asyncio()
async def test_a_slow_reader(stage: Stage) -> None:
    """Who does not read holds up the writer; all of it arrives once it does."""
    started = asyncio.Event()
    received: list[bytes] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await started.wait()
        received.append(await reader.read())
        await closed(writer)

    server, address = await serve(stage, slow, limit=1000)
    _, writer = await asyncio.open_connection(*address)
    writer.write(BIG * 6)
    draining = asyncio.ensure_future(writer.drain())
    await stage.pause()
    stage.see("drained", draining.done())
    stage.see("in the buffer", writer.transport.get_write_buffer_size() > 0)
    started.set()
    await asyncio.wait_for(draining, LIMIT)
    writer.write_eof()
    await stage.wait("closed", closed, writer)
    while not received:
        await stage.pause()
    stage.see("received", digest(received[0]))
    await over(server)


@in_asyncio()
async def test_aborted_with_full_buffers(stage: Stage) -> None:
    """A transport that is aborted forgets what it has not sent."""
    done = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        rest = await stage_read(reader)
        stage.see("some of it", 0 < len(rest) < len(BIG) * 6)
        writer.close()
        done.clear()

    async def stage_read(reader: asyncio.StreamReader) -> bytes:
        parts = []
        while part := await reader.read(65536):
            parts.append(part)
        return b"".join(parts)

    server, address = await serve(stage, deaf, limit=1000)
    _, writer = await asyncio.open_connection(*address)
    writer.write(BIG * 6)
    writer.transport.abort()
    await stage.wait("closed", writer.wait_closed)
    done.set()
    while done.is_set():
        await stage.pause()
    await over(server)


# ---- transports ----------------------------------------------------------------------------------


class Listener(asyncio.Protocol):
    """Says what happens to it."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.events: list[object] = []
        self.keep_open = keep_open
        self.transport: Any = None
        self.made = asyncio.Event()
        self.lost = asyncio.Event()
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it."""
        self.transport = transport
        self.made.set()
        sock = self.transport.get_extra_info("socket")
        self.events.append((sock.family, sock.type, sock.proto))

    def data_received(self, data: bytes) -> None:
        """Keep the data."""
        self.data += data

    def eof_received(self) -> bool:
        """Note the end; say whether to stay open."""
        self.events.append(("end", digest(self.data)))
        return self.keep_open

    def pause_writing(self) -> None:
        """Note it."""
        self.events.append("pause")

    def resume_writing(self) -> None:
        """Note it."""
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        """Note why."""
        self.events.append(("lost", told(exc) if exc else None))
        self.lost.set()


async def protocols(stage: Stage, **options: bool) -> tuple[asyncio.Server, Listener, Listener]:
    """Return a server, the client's protocol and the server's."""
    loop = asyncio.get_running_loop()
    there, here = Listener(**options), Listener(**options)
    with stage.server():
        server = await loop.create_server(lambda: there, stage.address, 0)
    await loop.create_connection(lambda: here, *server.sockets[0].getsockname())
    await asyncio.wait_for(there.made.wait(), LIMIT)
    return server, here, there


async def lost(stage: Stage, **these: Listener) -> None:
    """Wait until connections are over, and note what happened to each end."""
    for name, each in these.items():
        await asyncio.wait_for(each.lost.wait(), LIMIT)
        stage.see(name, each.events)


@in_asyncio()
async def test_closed_transports(stage: Stage) -> None:
    """Who closes tells the peer, whose transport closes as well."""
    server, here, there = await protocols(stage)
    here.transport.write(b"hello")
    here.transport.close()
    await lost(stage, client=here, server=there)
    await over(server)


@in_asyncio()
async def test_half_closed_transports(stage: Stage) -> None:
    """A protocol that keeps its transport open can answer after the end."""
    server, here, there = await protocols(stage, keep_open=True)
    here.transport.write(b"question")
    here.transport.write_eof()
    await stage.pause()
    there.transport.write(b"answer")
    there.transport.write_eof()
    await stage.pause()
    stage.see("answer", here.data)
    stage.see("open", not here.transport.is_closing())
    here.transport.close()
    there.transport.close()
    await lost(stage, client=here, server=there)
    await over(server)


@in_asyncio()
async def test_aborted_transports(stage: Stage) -> None:
    """To abort is no reset while everything is read."""
    server, here, there = await protocols(stage)
    here.transport.abort()
    await lost(stage, client=here, server=there)
    await over(server)


@in_asyncio()
async def test_reset_transports(stage: Stage) -> None:
    """A reset is what a connection is lost with."""
    server, here, there = await protocols(stage)
    sock = here.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    here.transport.abort()
    await lost(stage, client=here, server=there)
    await over(server)


@in_asyncio()
async def test_a_paused_reader_is_reset(stage: Stage) -> None:
    """Who does not read learns of the reset when it writes."""
    server, here, there = await protocols(stage)
    here.transport.pause_reading()
    sock = there.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    there.transport.abort()
    await lost(stage, server=there)
    await stage.pause()
    stage.see("lost", here.lost.is_set())
    here.transport.write(b"x")
    await lost(stage, client=here)
    await over(server)


@in_asyncio()
async def test_transports_pause(stage: Stage) -> None:
    """A transport pauses its protocol while its buffer is full."""
    server, here, there = await protocols(stage)
    there.transport.pause_reading()
    here.transport.write(BIG * 6)
    await stage.pause()
    there.transport.resume_reading()
    while len(there.data) < len(BIG) * 6:
        await stage.pause()
    here.transport.close()
    await lost(stage, client=here, server=there)
    await over(server)


@in_asyncio()
async def test_a_socket_of_ones_own(stage: Stage) -> None:
    """A transport can be given a socket that is connected or accepted already."""
    loop = asyncio.get_running_loop()
    one, other = await stage.pair()
    here, there = Listener(), Listener()
    await loop.create_connection(lambda: here, sock=one)
    await loop.connect_accepted_socket(lambda: there, other)
    here.transport.write(b"hello")
    here.transport.close()
    await lost(stage, client=here, server=there)
    listener = stage.bound()
    there = Listener()
    server = await loop.create_server(lambda: there, sock=listener)
    client = stage.near()
    await loop.sock_connect(client, listener.getsockname())
    await asyncio.wait_for(there.made.wait(), LIMIT)
    client.close()
    await lost(stage, server=there)
    await over(server)


@in_asyncio()
async def test_servers(stage: Stage) -> None:
    """A server serves from when it is started until it is closed; its address is its own."""
    loop = asyncio.get_running_loop()
    with stage.server():
        server = await loop.create_server(
            Listener, stage.address, 0, start_serving=False, backlog=5
        )
    address = server.sockets[0].getsockname()
    stage.see("serving", server.is_serving())
    await stage.wait("connect", loop.sock_connect, stage.near(), address)
    await server.start_serving()
    stage.see("serving", server.is_serving())
    client = stage.near()
    await stage.wait("connect", loop.sock_connect, client, address)
    client.close()
    with stage.server():
        await stage.wait("in use", loop.create_server, asyncio.Protocol, *address)
    await over(server)
    await stage.wait("connect", loop.sock_connect, stage.near(), address)
    with stage.server():
        again = await loop.create_server(asyncio.Protocol, *address)
    stage.see("the same", again.sockets[0].getsockname() == address)
    await over(again)
    with stage.server():
        await stage.wait("not mine", loop.create_server, asyncio.Protocol, "192.0.2.1", 0)


@in_asyncio(apart=False)
async def test_a_server_on_all_addresses(stage: Stage) -> None:
    """A server can listen on several names, and on all addresses."""
    for names in ("localhost", "0.0.0.0", ["127.0.0.1"], ["127.0.0.1", "localhost"]):  # noqa: S104
        server = await asyncio.start_server(answer, names, 0, family=socket.AF_INET)
        stage.see("sockets", sorted({sock.getsockname()[0] for sock in server.sockets}))
        for sock in server.sockets:
            reader, writer = await asyncio.open_connection("localhost", sock.getsockname()[1])
            await stage.wait("read", reader.read)
            await closed(writer)
        await over(server)


# ---- the loop's own methods ----------------------------------------------------------------------


@in_asyncio()
async def test_sockets_of_the_loop(stage: Stage) -> None:
    """The loop's methods for sockets: accept, connect, receive, send, files."""
    loop = asyncio.get_running_loop()
    listener = stage.listener()
    accepting = asyncio.ensure_future(loop.sock_accept(listener))
    client = stage.near()
    await stage.wait("connect", loop.sock_connect, client, listener.getsockname())
    server, address = await accepting
    stage.keep(server)
    stage.see("address", address == client.getsockname())
    await stage.wait("sendall", loop.sock_sendall, client, b"hello")
    await stage.wait("recv", loop.sock_recv, server, 3)
    buffer = bytearray(10)
    await stage.wait("recv_into", loop.sock_recv_into, server, buffer)
    stage.see("buffer", buffer)
    receiving = asyncio.ensure_future(stage.receive_all(server))
    await loop.sock_sendall(client, BIG)
    with tempfile.TemporaryFile() as file:
        file.write(BIG[:100_000])
        file.seek(0)
        await stage.wait("sendfile", loop.sock_sendfile, client, file)
        await stage.wait("part of it", loop.sock_sendfile, client, file, 10, 20)
    client.shutdown(socket.SHUT_WR)
    stage.see("received", digest(await receiving))
    server.close()
    await stage.wait("recv", loop.sock_recv, client, 10)
    await stage.wait("sendall", loop.sock_sendall, client, b"x")


@in_asyncio()
async def test_a_file_through_a_transport(stage: Stage) -> None:
    """A file is sent between what is written before and after it."""
    server, here, there = await protocols(stage)
    loop = asyncio.get_running_loop()
    here.transport.write(b"before ")
    with tempfile.TemporaryFile() as file:
        file.write(BIG[:100_000])
        file.seek(0)
        await stage.wait("sendfile", loop.sendfile, here.transport, file)
    here.transport.write(b" after")
    here.transport.write_eof()
    while len(there.data) < 100_000 + 13:
        await stage.pause()
    await lost(stage, client=here, server=there)
    await over(server)


@in_asyncio()
async def test_a_cancelled_connect(stage: Stage) -> None:
    """A connect that was cancelled leaves nothing behind."""
    listener = stage.listener(0)
    await stage.connect(stage.near(), listener)
    loop = asyncio.get_running_loop()
    client = stage.near()
    connecting = asyncio.ensure_future(loop.sock_connect(client, listener.getsockname()))
    await stage.pause()
    connecting.cancel()
    await asyncio.wait([connecting])
    stage.see("cancelled", connecting.cancelled())
    stage.call("peer", client.getpeername)
    client.close()
    opening = asyncio.ensure_future(asyncio.open_connection(*listener.getsockname()))
    await stage.pause()
    opening.cancel()
    await asyncio.wait([opening])
    stage.see("cancelled", opening.cancelled())


# ---- datagrams -----------------------------------------------------------------------------------


class Datagrams(asyncio.DatagramProtocol):
    """Says what happens to it, and answers in capitals."""

    def __init__(self, *, echo: bool = False) -> None:
        self.events: list[object] = []
        self.echo = echo
        self.transport: Any = None
        self.peers: list[Address] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Note it, and answer."""
        self.events.append(data)
        self.peers.append(addr)
        if self.echo:
            self.transport.sendto(data.upper(), addr)

    def error_received(self, exc: Exception) -> None:
        """Note it."""
        self.events.append(told(exc))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note why."""
        self.events.append(("lost", told(exc) if exc else None))


@in_asyncio(ordered=True)
async def test_datagram_endpoints(stage: Stage) -> None:
    """Endpoints answer each other; who is connected learns that nobody is there."""
    loop = asyncio.get_running_loop()
    with stage.server():
        server, there = await loop.create_datagram_endpoint(
            lambda: Datagrams(echo=True), local_addr=(stage.address, 0)
        )
    address = server.get_extra_info("sockname")
    free, here = await loop.create_datagram_endpoint(
        Datagrams,
        local_addr=("0.0.0.0", 0),  # noqa: S104
    )
    bound, peer = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
    free.sendto(b"to you", address)
    await stage.pause()
    bound.sendto(b"to my peer")
    bound.sendto(b"")
    await stage.pause()
    stage.see("from", here.peers == [address])
    stage.see("free", there.peers[0][1] == free.get_extra_info("sockname")[1])
    stage.see("connected", there.peers[1] == bound.get_extra_info("sockname"))
    stage.see("peer", bound.get_extra_info("peername") == address)
    stage.call("elsewhere", bound.sendto, b"x", (stage.address, 1))
    server.close()
    await stage.pause()
    bound.sendto(b"anybody?")
    await stage.pause()
    bound.sendto(b"really?")
    await stage.pause()
    free.sendto(b"anybody?", address)
    free.sendto(bytes(70_000), address)
    await stage.pause()
    free.close()
    bound.abort()
    await stage.pause()
    for name, each in {"server": there, "free": here, "connected": peer}.items():
        stage.see(name, each.events)


@in_asyncio()
async def test_datagrams_of_the_loop(stage: Stage) -> None:
    """The loop's methods for datagrams."""
    loop = asyncio.get_running_loop()
    server, client = stage.bound(socket.SOCK_DGRAM), stage.near(socket.SOCK_DGRAM)
    waiting = asyncio.ensure_future(loop.sock_recvfrom(server, 100))
    await stage.pause()
    await stage.wait("sendto", loop.sock_sendto, client, b"question", server.getsockname())
    data, address = await asyncio.wait_for(waiting, LIMIT)
    stage.see("recvfrom", (data, stage.host(address[0])))
    await stage.wait("answer", loop.sock_sendto, server, b"answer", address)
    buffer = bytearray(10)
    size, address = await loop.sock_recvfrom_into(client, buffer)
    stage.see("recvfrom_into", (size, buffer, address == server.getsockname()))
    await stage.wait("connect", loop.sock_connect, client, server.getsockname())
    await stage.wait("sendall", loop.sock_sendall, client, b"connected")
    await stage.wait("recv", loop.sock_recv, server, 100)
