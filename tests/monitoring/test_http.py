"""Which bytes are a request, and how an answer looks on the wire."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.monitoring._http import RefusedError, encode, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = {
    "plain": (b"GET /livez HTTP/1.1\r\nHost: a", ("GET", "/livez", "", True)),
    "query": (
        b"GET /stats?points=5&x=? HTTP/1.1\r\nHost: a",
        ("GET", "/stats", "points=5&x=?", True),
    ),
    "HEAD": (b"HEAD / HTTP/1.1\r\nHost: a", ("HEAD", "/", "", True)),
    "another method": (b"POST / HTTP/1.1\r\nHost: a", ("POST", "/", "", True)),
    "no body": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0", ("GET", "/", "", True)),
    "close": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close", ("GET", "/", "", False)),
    "close among others": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, Close",
        ("GET", "/", "", False),
    ),
    "close in a second field": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nConnection: close",
        ("GET", "/", "", False),
    ),
    "1.0": (b"GET / HTTP/1.0", ("GET", "/", "", False)),
    "1.0 wants to stay": (b"GET / HTTP/1.0\r\nConnection: keep-alive", ("GET", "/", "", False)),
    "1.2": (b"GET / HTTP/1.2\r\nHost: a", ("GET", "/", "", True)),
    "bad percent-encoding": (b"GET /%zz%2 HTTP/1.1\r\nHost: a", ("GET", "/%zz%2", "", True)),
    "two slashes": (b"GET //livez HTTP/1.1\r\nHost: a", ("GET", "//livez", "", True)),
}

HOSTS = [b"a:80", b"[::1]:80", b"127.0.0.1", b"", b"xn--nxasmq6b:1", b"a_b.c"]

BAD = {
    "nothing": (b"", 400),
    "a NUL": (b"GET /\0 HTTP/1.1\r\nHost: a", 400),
    "no version": (b"GET /", 400),
    "0.9": (b"GET / HTTP/0.9", 505),
    "2.0": (b"GET / HTTP/2.0\r\nHost: a", 505),
    "a version of two digits": (b"GET / HTTP/1.10\r\nHost: a", 400),
    "version in lower case": (b"GET / http/1.1\r\nHost: a", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a", 400),
    "space in the path": (b"GET /a b HTTP/1.1\r\nHost: a", 400),
    "space at the end": (b"GET / HTTP/1.1 \r\nHost: a", 400),
    "tab": (b"GET\t/ HTTP/1.1\r\nHost: a", 400),
    "non-ASCII path": ("GET /é HTTP/1.1\r\nHost: a".encode(), 400),
    "non-ASCII method": ("GÉT / HTTP/1.1\r\nHost: a".encode(), 400),
    "absolute form": (b"GET http://a/livez HTTP/1.1\r\nHost: a", 400),
    "authority form": (b"CONNECT a:80 HTTP/1.1\r\nHost: a", 400),
    "asterisk form": (b"OPTIONS * HTTP/1.1\r\nHost: a", 400),
    "empty line first": (b"\r\nGET / HTTP/1.1\r\nHost: a", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a", 400),
    "bare LF in a field": (b"GET / HTTP/1.1\r\nHost: a\nX: b", 400),
    "bare CR in a field": (b"GET / HTTP/1.1\r\nHost: a\rX: b", 400),
    "NUL in a field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0", 400),
    "control in a field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : a", 400),
    "folded": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c", 400),
    "no colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX", 400),
    "no name": (b"GET / HTTP/1.1\r\nHost: a\r\n: b", 400),
    "non-ASCII name": (b"GET / HTTP/1.1\r\nHost: a\r\n\xe9: b", 400),
    "no Host": (b"GET / HTTP/1.1", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a", 400),
    "two Hosts in 1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nhost: b", 400),
    "two Authorizations": (
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nauthorization: Bearer b",
        400,
    ),
    "invalid Host": (b"GET / HTTP/1.1\r\nHost: a b", 400),
    "invalid Host in 1.0": (b"GET / HTTP/1.0\r\nHost: a/b", 400),
    "user in Host": (b"GET / HTTP/1.1\r\nHost: a@b", 400),
    "port in Host": (b"GET / HTTP/1.1\r\nHost: a:b", 400),
    "brackets in Host": (b"GET / HTTP/1.1\r\nHost: [::1", 400),
    "non-ASCII Host": (b"GET / HTTP/1.1\r\nHost: \xe9", 400),
    "a body": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5", 413),
    "a negative body": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1", 413),
    "a list of lengths": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0", 413),
    "an odd zero": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +0", 413),
    "two lengths": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5", 400),
    "two equal lengths": (
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0",
        400,
    ),
    "chunked": (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", 413),
    "chunked in disguise": (b"GET / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:\tx, identity", 413),
    "chunked in 1.0": (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked", 413),
    "length and chunked": (
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked",
        413,
    ),
}


@pytest.mark.parametrize(("head", "expected"), GOOD.values(), ids=GOOD)
def test_good(head: bytes, expected: tuple[str, str, str, bool]) -> None:
    """A correct head is read as it is."""
    found = parse(head)
    assert (found.method, found.path, found.query, found.keep_alive) == expected


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_hosts(host: bytes) -> None:
    """Names, addresses, ports and nothing are hosts."""
    assert parse(b"GET / HTTP/1.1\r\nHost:" + host).fields == [(b"host", host)]


@pytest.mark.parametrize(("head", "status"), BAD.values(), ids=BAD)
def test_bad(head: bytes, status: int) -> None:
    """What two readers may read in two ways is refused."""
    with pytest.raises(RefusedError) as caught:
        parse(head)
    assert caught.value.status == status


def test_fields() -> None:
    """Names are in lower case, values have no whitespace around them; non-ASCII bytes are kept."""
    head = b"GET / HTTP/1.1\r\nHOST: a\r\nX-Y: \t b c\t \r\nZ:\r\nAuthorization: Bearer \xc3\xa9"
    assert parse(head).fields == [
        (b"host", b"a"),
        (b"x-y", b"b c"),
        (b"z", b""),
        (b"authorization", b"Bearer \xc3\xa9"),
    ]


@given(st.binary(max_size=200) | st.text("GETHP/1. \r\n:\0é").map(str.encode))
def test_any_bytes(head: bytes) -> None:
    """Any bytes are a request or are refused, and nothing else."""
    try:
        parse(head)
    except RefusedError as error:
        assert error.status in {400, 413, 505}  # noqa: PT017 - either is fine


def test_linear() -> None:
    """A head of the greatest length made to be slow is read at once."""
    started = time.perf_counter()
    for filler in (b" ", b"\t", b"a", b"a,", b":", b"close ,"):
        for name in (b"X:", b"Host:", b"Connection:", b"Authorization:"):
            head = b"GET / HTTP/1.0\r\n" + name + filler * (8000 // len(filler))
            try:
                parse(head)
            except RefusedError:
                continue
    assert time.perf_counter() - started < 10  # a quadratic reader takes minutes


def test_encode() -> None:
    """An answer says its length, its date and whether the connection stays, and not who we are."""
    (data,) = encode(200, [("content-type", "text/plain")], b"ok", keep_alive=True, with_body=True)
    head, body = data.split(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    assert first == "HTTP/1.1 200 OK"
    assert body == b"ok"
    names = [field.partition(":")[0] for field in fields]
    assert names == ["date", "content-length", "connection", "content-type"]
    assert "content-length: 2" in fields
    assert "connection: keep-alive" in fields


def test_encode_head() -> None:
    """The answer to HEAD has the length of the body, and no body."""
    (data,) = encode(503, [], b"unavailable", keep_alive=False, with_body=False)
    assert data.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"content-length: 11\r\nconnection: close\r\n" in data
    assert data.endswith(b"\r\n\r\n")


def test_encode_in_pieces() -> None:
    """A body in pieces goes in chunks, none of which is made before the one before was sent."""
    asked: list[bytes] = []

    def rest() -> Iterator[bytes]:
        for piece in (b"b" * 17, b"c"):
            asked.append(piece)
            yield piece

    pieces = encode(200, [], b"a", rest(), keep_alive=True, with_body=True)
    head, _, body = next(pieces).partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked\r\nconnection: keep-alive" in head
    assert b"content-length" not in head
    assert (body, asked) == (b"1\r\na\r\n", [])
    assert next(pieces) == b"11\r\n" + b"b" * 17 + b"\r\n"
    assert asked == [b"b" * 17]
    assert list(pieces) == [b"1\r\nc\r\n", b"0\r\n\r\n"]


def test_encode_in_pieces_without_chunks() -> None:
    """For HTTP/1.0 a body in pieces ends where the connection does; for HEAD none is made."""
    assert not parse(b"GET / HTTP/1.0").takes_chunks
    assert parse(b"GET / HTTP/1.1\r\nHost: a").takes_chunks
    rest = iter([b"b"])
    (head,) = encode(200, [], b"a", rest, keep_alive=False, with_body=False)
    assert head.endswith(b"\r\n\r\n")
    first, *others = encode(200, [], b"a", rest, keep_alive=False, with_body=True, chunked=False)
    assert b"transfer-encoding" not in first
    assert b"content-length" not in first
    assert first.endswith(b"\r\n\r\na")
    assert others == [b"b"]
