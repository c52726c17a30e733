"""Whom a request comes from: only what trusted proxies have written is believed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio._internal.proxies import Proxies

TRUSTED = "127.0.0.1, 10.0.0.0/8,2001:db8::/32 , unix"


def asked(
    peer: str | None, *headers: tuple[str, str], kind: str = "http", trusted: str = TRUSTED
) -> tuple[Any, str]:
    """Return the client and the scheme of a request."""
    proxies = Proxies.parse("trusted_proxies", trusted)
    assert proxies is not None
    scope: dict[str, Any] = {
        "type": kind,
        "scheme": "http" if kind == "http" else "ws",
        "client": None if peer is None else (peer, 40000),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    before = list(scope["headers"])
    proxies.apply(scope)
    assert scope["headers"] == before
    client = scope["client"]
    return client and client[0], scope["scheme"]


FOR, PROTO = "x-forwarded-for", "x-forwarded-proto"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),  # no proxy
        ("10.1.2.3", "1.2.3.4", "1.2.3.4"),
        ("::ffff:10.1.2.3", "1.2.3.4", "1.2.3.4"),  # at [::]
        (None, "1.2.3.4", "1.2.3.4"),  # a Unix socket
        ("10.1.2.3", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # the client wrote the first itself
        ("10.1.2.3", "6.6.6.6,1.2.3.4, 127.0.0.1 ,10.9.9.9", "1.2.3.4"),  # three proxies
        ("10.1.2.3", "10.0.0.7,127.0.0.1", "10.0.0.7"),  # a client within
        ("10.1.2.3", "1.2.3.4:5678", "1.2.3.4"),
        ("10.1.2.3", "[2001:DB9:0::1]:5678", "2001:db9::1"),
        ("2001:db8::7", "2001:db9::1", "2001:db9::1"),
        ("10.1.2.3", "unknown", "10.1.2.3"),
        ("10.1.2.3", "1.2.3.4, <script>", "10.1.2.3"),
        ("10.1.2.3", "1.2.3.4, , 10.0.0.2", "10.0.0.2"),
        ("10.1.2.3", "", "10.1.2.3"),
    ],
)
def test_client(peer: str | None, forwarded: str, client: str) -> None:
    """It is the last address that is no proxy's; what is none hides what comes before it."""
    assert asked(peer, (FOR, forwarded)) == (client, "http")


def test_several_headers() -> None:
    """They are one list, in their order."""
    headers = ((FOR, "6.6.6.6"), ("cookie", "a"), (FOR, "1.2.3.4"), (FOR, "10.0.0.2"))
    assert asked("127.0.0.1", *headers) == ("1.2.3.4", "http")


@pytest.mark.parametrize(
    ("kind", "proto", "scheme"),
    [
        ("http", "https", "https"),
        ("http", "HTTPS ", "https"),
        ("http", "http, https", "https"),  # the nearest proxy wrote the last
        ("http", "https, http", "http"),
        ("http", "javascript", "http"),
        ("http", "wss", "https"),
        ("websocket", "https", "wss"),
        ("websocket", "wss", "wss"),
        ("websocket", "http", "ws"),
    ],
)
def test_scheme(kind: str, proto: str, scheme: str) -> None:
    """It is one of HTTP or of websockets, or what it was."""
    assert asked("127.0.0.1", (PROTO, proto), kind=kind) == ("127.0.0.1", scheme)
    assert asked("9.9.9.9", (PROTO, proto), kind=kind)[1] in {"http", "ws"}


def test_unix_is_not_trusted_by_itself() -> None:
    """Who comes through a Unix socket is believed only if that is said."""
    assert asked(None, (FOR, "1.2.3.4"), trusted="127.0.0.1") == (None, "http")
    assert asked("127.0.0.1", (FOR, "1.2.3.4"), trusted="unix") == ("127.0.0.1", "http")


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0")))
def test_no_client_can_choose_its_address(written: str) -> None:
    """Whatever a client sends, the proxy appends the truth, and that is what counts."""
    assert asked("10.0.0.1", (FOR, f"{written}, 203.0.113.9")) == ("203.0.113.9", "http")
    assert asked("203.0.113.9", (FOR, written), (PROTO, written)) == ("203.0.113.9", "http")


@pytest.mark.parametrize("none", [None, ""])
def test_none(none: str | None) -> None:
    """Nothing means nobody."""
    assert Proxies.parse("trusted_proxies", none) is None


@pytest.mark.parametrize("text", ["*", "shop.example", "10.0.0.1/8", "10.0.0.1,", "10.0.0.300"])
def test_refused(text: str) -> None:
    """What is no address is refused, with what is."""
    with pytest.raises(
        ValueError, match=r"^MTAIO_X='.*' is not a list of addresses .* Pass IP addr"
    ):
        Proxies.parse("MTAIO_X", text)
    with pytest.raises(TypeError, match=r"^MTAIO_X=\['10\.0\.0\.1'\] is a list, not a str\. Pass"):
        Proxies.parse("MTAIO_X", ["10.0.0.1"])
