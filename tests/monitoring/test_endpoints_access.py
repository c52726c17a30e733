"""Who may see figures."""

from __future__ import annotations

import hmac
from base64 import b64encode
from dataclasses import replace

import pytest

from mtaio._internal.addresses import is_loopback
from mtaio.monitoring._endpoints import Access, Request, is_forwarded

LOCAL = Request("GET", "/stats", "", None, "127.0.0.1:8000", client="127.0.0.1", forwarded=False)


def basic(user: str, password: str) -> bytes:
    """Return the field's value for a user and a password."""
    return b"Basic " + b64encode(f"{user}:{password}".encode())


RIGHT = {
    "bearer": b"Bearer s3:cret",
    "scheme in lower case": b"bearer s3:cret",
    "scheme in capitals": b"BEARER   s3:cret",
    "basic": basic("anyone", "s3:cret"),
    "basic without a user": basic("", "s3:cret"),
}

WRONG = {
    "none": None,
    "empty": b"",
    "no scheme": b"s3:cret",
    "another scheme": b"Digest s3:cret",
    "no credentials": b"Bearer",
    "wrong": b"Bearer s3:cred",
    "longer": b"Bearer s3:cret2",
    "shorter": b"Bearer s3:cre",
    "another case": b"Bearer S3:CRET",
    "two": b"Bearer s3:cret, Bearer s3:cret",
    "non-ASCII": "Bearer s3:crét".encode(),
    "not UTF-8": b"Bearer \xff",
    "token as the user": basic("s3:cret", ""),
    "basic without a colon": b"Basic " + b64encode(b"s3cret"),
    "basic in plain": b"Basic a:s3:cret",
    "basic with a NUL": b"Basic \0",
    "basic not base64": "Basic é".encode(),
}


@pytest.mark.parametrize("given", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("client", ["127.0.0.1", "10.0.0.9", None])
def test_right_token(given: bytes, client: str | None) -> None:
    """Those with the token are let in, from anywhere and through proxies, for any host."""
    request = replace(
        LOCAL,
        authorization=given,
        client=client,
        forwarded=True,
        host="a.example",
    )
    assert Access("s3:cret").status(request) == 200


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
def test_wrong_token(given: bytes | None) -> None:
    """Nobody else is let in, local or not."""
    assert Access("s3:cret").status(replace(LOCAL, authorization=given)) == 401


def test_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much of a token is right, comparing it takes the same time."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert Access("secret").status(replace(LOCAL, authorization=b"Bearer secre")) == 401
    assert compared == [(b"secre", b"secret")]


@pytest.mark.parametrize("token", ["päss", "秘密 の", "a b", "~" * 1000, "a:b", "s%20"])
def test_any_token(token: str) -> None:
    """A token may have any printable characters, in UTF-8 on the wire."""
    access = Access(token)
    for given in (b"Bearer " + token.encode(), basic("x", token)):
        assert access.status(replace(LOCAL, authorization=given)) == 200
    assert access.status(replace(LOCAL, authorization=b"Bearer x" + token.encode())) == 401


REFUSED = {
    "empty": "",
    "spaces": "  ",
    "line break after it": "secret\n",
    "space before it": " secret",
    "line break in it": "sec\r\nret",
    "NUL": "sec\0ret",
    "undecoded byte": "secret\udcff",
}


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_refused_tokens(token: str) -> None:
    """A token that no client could send is refused, and not shown."""
    with pytest.raises(ValueError, match=r"^token (is empty|begins or ends with)") as caught:
        Access(token)
    assert "sec" not in str(caught.value)


def test_token_type() -> None:
    """A token is a str; what was passed is not shown."""
    with pytest.raises(TypeError, match=r"^token is a bytes, not a str\.") as caught:
        Access(b"secret")  # type: ignore[arg-type] # what is tested
    assert "secret" not in str(caught.value)


def test_token_is_not_shown() -> None:
    """Neither who decides nor a request shows a token."""
    request = replace(LOCAL, authorization=b"Bearer secret")
    assert "secret" not in repr(request) + str(request) + repr(Access("secret"))


HOSTS = {
    "localhost": 200,
    "LOCALHOST:80": 200,
    "127.0.0.1": 200,
    "127.1.2.3:8000": 200,
    "[::1]": 200,
    "[::1]:8000": 200,
    "[::ffff:127.0.0.1]:8000": 200,
    "a.example": 403,
    "localhost.a.example": 403,
    "a.localhost": 403,
    "localhost:": 200,
    "10.0.0.1": 403,
    "0.0.0.0": 403,  # noqa: S104 - bound nowhere
    "[::]": 403,
    "[fe80::1]:80": 403,
    "::1": 403,
    "127.0.0.1:80:80": 403,
    "127.0.0.1:a": 403,
    "2130706433": 403,
    "127.1": 403,
    "": 403,
    ":8000": 403,
    "[]": 403,
}


@pytest.mark.parametrize(("host", "status"), HOSTS.items(), ids=HOSTS)
def test_hosts(host: str, status: int) -> None:
    """Without a token the Host field has to name a loopback address."""
    assert Access(None).status(replace(LOCAL, host=host)) == status


@pytest.mark.parametrize(
    "change", [{"host": None}, {"client": "10.0.0.9"}, {"forwarded": True}], ids=str
)
def test_without_token(change: dict[str, object]) -> None:
    """Without a token nobody comes in from elsewhere, through a proxy, or without a Host field."""
    assert Access(None).status(replace(LOCAL, **change)) == 403  # type: ignore[arg-type] # a field's
    assert Access(None).status(LOCAL) == 200


ADDRESSES = {
    "127.0.0.1": True,
    "127.8.8.8": True,
    "::1": True,
    "::ffff:127.0.0.1": True,
    "::ffff:10.0.0.1": False,
    "10.0.0.1": False,
    "0.0.0.0": False,  # noqa: S104 - an address, bound nowhere
    "::": False,
    "fe80::1%eth0": False,
    "testclient": False,
    "": False,
}


@pytest.mark.parametrize(("address", "expected"), ADDRESSES.items(), ids=ADDRESSES)
def test_addresses(address: str, *, expected: bool) -> None:
    """Loopback addresses are local, also as IPv6 writes those of IPv4."""
    assert is_loopback(address) is expected
    assert replace(LOCAL, client=address).client_is_local is expected


def test_unix_socket() -> None:
    """A client without an address is one of a Unix socket."""
    assert replace(LOCAL, client=None).client_is_local


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"forwarded", True),
        (b"via", True),
        (b"x-forwarded-for", True),
        (b"x-forwarded-host", True),
        (b"x-real-ip", True),
        (b"host", False),
        (b"x-request-id", False),
    ],
)
def test_forwarded(name: bytes, *, expected: bool) -> None:
    """What proxies add shows that there is one."""
    assert is_forwarded(name) is expected
