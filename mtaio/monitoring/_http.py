"""
The part of HTTP/1.1 that probes need: a request without a body, and its answer.

Promise: anything but a complete, correct request head is refused, so that no two readers of the
same bytes can disagree on where a request ends. Time and memory are linear in the head.
Cost: about ten microseconds for each request.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["END", "MAX_HEAD", "Head", "RefusedError", "encode", "parse"]

MAX_HEAD: Final = 8192
"""Bytes of a head, from the first of the request line to the last before the empty line."""

END: Final = b"\r\n\r\n"

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/(\d)\.(\d)")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*)")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::\d*)?")
_ONLY_ONCE: Final = (b"host", b"authorization", b"content-length")


class RefusedError(Exception):
    """
    The bytes are not a request that is answered; the connection is to be closed.

    Args:
        status: The status to answer with.
        reason: What is wrong with them.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status: Final = status
        self.reason: Final = reason


class Head(NamedTuple):
    """What a client requests."""

    method: str
    path: str
    query: str
    fields: list[tuple[bytes, bytes]]
    """The header fields: names in lower case, values without the whitespace around them."""
    keep_alive: bool
    """Whether another request may follow."""
    takes_chunks: bool
    """Whether the client understands an answer in chunks: all but those of HTTP/1.0 do."""


def parse(head: bytes) -> Head:
    """
    Read the head of a request, without the empty line that ends it.

    Raises:
        RefusedError: It is malformed, of another version, or announces a body.
    """
    first, *lines = head.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise RefusedError(400, "the request line is malformed")
    method, target, major, minor = request.groups()
    if major != b"1":
        raise RefusedError(505, "only HTTP/1.0 and HTTP/1.1 are supported")
    if not target.startswith(b"/"):
        raise RefusedError(400, "the request target is not a path")
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise RefusedError(400, "a header field is malformed")
        fields.append((field[1].lower(), field[2].strip(b" \t")))
    named = dict(fields)
    for name in _ONLY_ONCE:
        if sum(name == each for each, _ in fields) > 1:
            raise RefusedError(400, "a header field is repeated")
    if b"transfer-encoding" in named or named.get(b"content-length", b"0") != b"0":
        raise RefusedError(413, "a request with a body is not accepted")
    is_1_0 = minor == b"0"
    host = named.get(b"host")
    if not (is_1_0 if host is None else _HOST.fullmatch(host)):
        raise RefusedError(400, "the Host field is missing or malformed")
    path, _, query = target.decode("ascii").partition("?")
    closes = any(
        b"close" in value.lower().replace(b" ", b"").split(b",")
        for name, value in fields
        if name == b"connection"
    )
    return Head(method.decode("ascii"), path, query, fields, not is_1_0 and not closes, not is_1_0)


def encode(
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    rest: Iterable[bytes] | None = None,
    *,
    keep_alive: bool,
    with_body: bool,
    chunked: bool = True,
) -> Iterator[bytes]:
    """
    Return an answer in the pieces to send, each made when it is to be sent.

    Args:
        status: Its status.
        headers: Its header fields, without those about length and connection.
        body: Its body, or how that begins.
        rest: The pieces that follow, none of them empty; None if ``body`` is all.
        keep_alive: Whether another request may follow.
        with_body: False for HEAD.
        chunked: Whether a body with ``rest`` goes in chunks; if not, the connection's end is its
            end.
    """
    if rest is None:
        length = [f"content-length: {len(body)}"]
    else:
        length = ["transfer-encoding: chunked"] if chunked else []
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"date: {formatdate(usegmt=True)}",
        *length,
        f"connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    head = "\r\n".join(lines).encode("ascii") + END
    if not with_body:
        yield head
    elif rest is None:
        yield head + body
    else:
        yield head + (_chunk(body) if chunked else body)
        for piece in rest:
            yield _chunk(piece) if chunked else piece
        if chunked:
            yield _chunk(b"")  # which says that this is all


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)
