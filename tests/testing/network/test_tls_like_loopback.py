"""TLS over a simulated network is TLS over the loopback: handshakes, ends, resets, refusals."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.streams.tls import TLSAttribute, TLSStream

from tests.testing.network.loopback import Stage, like_loopback, raw_socket, serving

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import trio
except ImportError:
    trio = None  # type: ignore[assignment]

OPENSSL = shutil.which("openssl")

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")

BIG = hashlib.shake_128().digest(1_000_000)

in_asyncio = partial(like_loopback, only="asyncio", apart=False)
in_trio = partial(like_loopback, only="trio", apart=False)


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the context of a server that is called localhost, and of clients that trust it."""
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    with tempfile.TemporaryDirectory() as folder:
        files = ("-keyout", "key.pem", "-out", "cert.pem", "-days", "2")
        command = [str(OPENSSL), *new, *files, *names]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603 - ours
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(Path(folder, "cert.pem"), Path(folder, "key.pem"))
        client = ssl.create_default_context(cafile=Path(folder, "cert.pem"))
    return server, client


def reset(sock: Any) -> None:
    """Have the next close reset the connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# ---- asyncio -------------------------------------------------------------------------------------


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@in_asyncio()
async def test_streams(stage: Stage) -> None:
    """A handshake, bytes both ways, an end."""
    server_context, context = contexts()
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    stage.see("version", writer.get_extra_info("ssl_object").version())
    writer.write(b"hello")
    await stage.wait("read", reader.read, 100)
    writer.write(BIG)
    received = await reader.readexactly(len(BIG))
    stage.see("received", hashlib.sha256(received).hexdigest())
    stage.see("can write_eof", writer.can_write_eof())
    writer.close()
    await stage.wait("closed", writer.wait_closed)
    await stage.wait("untrusted", asyncio.open_connection, "localhost", port, ssl=True)
    await stage.wait("another name", asyncio.open_connection, "127.0.0.1", port, ssl=context)
    server.close()
    await server.wait_closed()


@in_asyncio()
async def test_plain_to_tls(stage: Stage) -> None:
    """A connection begins in plain text, and goes on with TLS."""
    server_context, context = contexts()

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stage.see("command", await reader.readline())
        writer.write(b"go ahead\n")
        await writer.drain()
        await writer.start_tls(server_context)
        await echo(reader, writer)

    server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
    writer.write(b"STARTTLS\n")
    await stage.wait("answer", reader.readline)
    await writer.start_tls(context, server_hostname="localhost")
    writer.write(b"secret")
    await stage.wait("read", reader.read, 100)
    writer.close()
    await stage.wait("closed", writer.wait_closed)
    server.close()
    await server.wait_closed()


@in_asyncio()
async def test_a_handshake_is_cut_off(stage: Stage) -> None:
    """The server closes or resets in the middle of the handshake, or does not speak TLS."""
    _, context = contexts()
    how = ""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        if how == "reset":
            reset(writer.get_extra_info("socket"))
        if how == "plain text":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
            await reader.read(65536)
        writer.transport.abort() if how == "reset" else writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for how in ("close", "reset", "plain text"):
        await stage.wait(how, asyncio.open_connection, "localhost", port, ssl=context)
    server.close()
    await server.wait_closed()


@in_asyncio()
async def test_reset(stage: Stage) -> None:
    """A reset under TLS is a reset."""
    server_context, context = contexts()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        reset(writer.get_extra_info("socket"))
        writer.transport.abort()

    server = await asyncio.start_server(cut, "127.0.0.1", 0, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.write(b"go")
    await stage.wait("read", reader.read, 100)
    await stage.wait("drain", writer.drain)
    writer.close()
    await stage.wait("closed", writer.wait_closed)
    server.close()
    await server.wait_closed()


# ---- the sockets of the module ssl ---------------------------------------------------------------


async def until_done(
    stage: Stage, sock: ssl.SSLSocket, call: Callable[..., Any], *args: Any
) -> Any:
    """Call again and again, until TLS needs nothing more from the other end."""
    while True:
        try:
            return call(*args)
        except ssl.SSLWantReadError:
            await stage.readable(sock)
        except ssl.SSLWantWriteError:
            await stage.writable(sock)


@like_loopback()
async def test_sockets_of_ssl(stage: Stage) -> None:
    """Sockets that do TLS themselves, below Python, do it on a simulated connection as well."""
    server_context, context = contexts()
    plain, server_plain = await stage.pair()
    client = context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
    server = server_context.wrap_socket(
        server_plain, server_side=True, do_handshake_on_connect=False
    )
    for sock in (client, server):
        stage.keep(sock)
    stage.see("peer", client.getpeername() == server.getsockname())
    stage.see("the plain one", plain.fileno())
    stage.call("too early", client.recv, 10)
    async with anyio.create_task_group() as group:
        group.start_soon(until_done, stage, client, client.do_handshake)
        await until_done(stage, server, server.do_handshake)
    stage.see("version", client.version())
    await stage.wait("send", until_done, stage, client, client.send, b"hello")
    await stage.wait("recv", until_done, stage, server, server.recv, 100)
    await stage.wait("answer", until_done, stage, server, server.send, b"answer")
    await stage.wait("recv", until_done, stage, client, client.recv, 100)
    server.close()
    await stage.wait("the end", until_done, stage, client, client.recv, 100)


# ---- AnyIO ---------------------------------------------------------------------------------------


@like_loopback()
async def test_streams_of_anyio(stage: Stage) -> None:
    """A handshake, bytes both ways, an end that is not cut off."""
    server_context, context = contexts()

    async def answer(stream: TLSStream) -> None:
        async with stream:
            with anyio.fail_after(20):
                async for data in stream:
                    await stream.send(data)

    async with serving(stage, answer, server_context) as address:
        async with await anyio.connect_tcp(
            *address, ssl_context=context, tls_hostname="localhost"
        ) as stream:
            stage.see("version", stream.extra_attributes[TLSAttribute.tls_version]())
            await stage.wait("send", stream.send, b"hello")
            await stage.wait("receive", stream.receive)
            received = b""
            async with anyio.create_task_group() as group:
                group.start_soon(stream.send, BIG)
                while len(received) < len(BIG):
                    received += await stream.receive()
            stage.see("received", hashlib.sha256(received).hexdigest())
        await stage.wait("closed", stream.receive)


@like_loopback(alike=False)
async def test_an_end_that_is_cut_off(stage: Stage) -> None:
    """An end without TLS's goodbye is an error, and so is a reset."""
    server_context, context = contexts()
    how = ""

    async def cut(stream: TLSStream) -> None:
        await stream.receive()
        if how == "reset":
            reset(raw_socket(stream))
        await stream.transport_stream.aclose()

    async with serving(stage, cut, server_context) as address:
        for how in ("end", "reset"):
            stream = await anyio.connect_tcp(
                *address, ssl_context=context, tls_hostname="localhost"
            )
            await stream.send(b"go")
            await stage.wait(how, stream.receive)
            await stage.wait("send", stream.send, b"x")
            await stage.pause()
            await stage.wait("send", stream.send, b"x")
            await anyio.aclose_forcefully(stream)


# ---- trio ----------------------------------------------------------------------------------------


@in_trio()
async def test_streams_of_trio(stage: Stage) -> None:
    """A handshake, bytes both ways, an end."""
    server_context, context = contexts()

    async def answer(stream: Any) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_ssl_over_tcp, answer, 0, server_context, host="127.0.0.1")
        )
        port = listeners[0].transport_listener.socket.getsockname()[1]
        async with await trio.open_ssl_over_tcp_stream(
            "localhost", port, ssl_context=context
        ) as stream:
            await stage.wait("handshake", stream.do_handshake)
            await stage.wait("send", stream.send_all, b"hello")
            await stage.wait("receive", stream.receive_some)
        await stage.wait("receive", stream.receive_some)
        wrong = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context)
        await stage.wait("another name", wrong.do_handshake)
        await trio.aclose_forcefully(wrong)
        nursery.cancel_scope.cancel()
