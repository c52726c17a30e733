"""URLs of servers, and stores that are refused before they are used."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.exceptions import StoreError
from mtaio.redis import RedisStore
from mtaio.redis._store import start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://host", "redis://host:6379/0"),
        ("valkey://user:pass@host:1/2", "valkey://host:1/2"),
        ("rediss://:p%40ss@[::1]:1", "rediss://[::1]:1/0"),
        ("redis://one:1,two:2/0", "redis://one:1,two:2/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix://:pass@/run/redis.sock?db=3", "unix:///run/redis.sock?db=3"),
    ],
)
def test_names(url: str, name: str) -> None:
    """A store is called by its URL, without the password, unless it has a name."""
    store = RedisStore(url)
    assert store.name == name
    assert repr(store) == f"<RedisStore {name}>"
    assert RedisStore(url, name="limits", timeout=2).name == "limits"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("host:6379", r"^url does not begin with a known scheme"),
        ("http://host", r"^url does not begin with a known scheme"),
        ("redis://host/x", r"^url has the database 'x', which is not a number"),
        ("redis://", r"^url has the host '', which is not valid"),
        ("redis://host:port", r"^url has the host 'host:port'"),
        ("redis://host?db=1", r"^url has the host 'host\?db=1'"),
        ("unix://run/redis.sock", r"^url does not contain the absolute path of a socket"),
    ],
)
def test_refused_urls(url: str, message: str) -> None:
    """What is no URL of a server is refused, with an example of one."""
    with pytest.raises(ValueError, match=message + r".* Pass a URL such as"):
        RedisStore(url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, r"^timeout=0 is not a finite number greater than 0"),
        ({"ca_file": "ca.pem"}, r"^ca_file given for redis://host:6379/0, which does not use TLS"),
        ({"url": "rediss://host", "cert_file": "c"}, r"^cert_file and key_file need each other"),
        (
            {"url": "unix:///s", "cluster": True},
            r"^cluster=True with unix:///s: the nodes of a cluster",
        ),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused when the store is made."""
    with pytest.raises(ValueError, match=message):
        RedisStore(**{"url": "redis://host", **options})


def test_url_that_is_no_text() -> None:
    """Bytes are not taken for a URL, and are not shown."""
    with pytest.raises(TypeError, match=r"^url is a bytes, not a str"):
        RedisStore(b"redis://:pass@host")  # type: ignore[arg-type]  # refused


def test_missing_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without valkey-glide a store says what to install."""
    monkeypatch.setitem(sys.modules, "glide", None)
    with pytest.raises(ImportError, match=r"^mtaio\.redis needs valkey-glide\. Install it with"):
        RedisStore("redis://host")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies(copied: Callable[[object], object]) -> None:
    """A copy would share its connection, and a pickle show its password."""
    store = RedisStore("redis://:secret@127.0.0.1:1")
    with pytest.raises(TypeError, match=r"^<RedisStore redis://127.*> cannot be copied or pickled"):
        copied(store)


async def test_store_outside_of_its_block() -> None:
    """It is used inside its block."""
    store: Any = RedisStore("redis://127.0.0.1:1", timeout=0.1)
    with pytest.raises(RuntimeError, match=r"^<RedisStore .*> is not entered in this event loop"):
        await store.ping()
    async with store:
        pass
    with pytest.raises(RuntimeError, match=r"^<RedisStore .*> is not entered in this event loop"):
        await store.ping()


async def test_errors_in_the_block() -> None:
    """What the block raises goes out as it is, and so does what a task in it raises."""
    store = RedisStore("redis://127.0.0.1:1", timeout=0.1)
    with pytest.raises(KeyError):
        async with store:
            raise KeyError

    async def fail() -> None:
        msg = "failed"
        raise LookupError(msg)

    with pytest.raises(LookupError, match=r"^failed"):
        async with store:
            start(store, fail)
    with pytest.raises(ZeroDivisionError):
        async with store, store.subscribe(["a"], print, print):
            _ = 1 / 0


@pytest.mark.parametrize("names", [("ca_file",), ("cert_file", "key_file")], ids=" ".join)
def test_files_that_are_of_no_use(names: tuple[str, ...], tmp_path: Path) -> None:
    """A file that is missing, or is no certificate, is refused when the store is made."""
    pytest.importorskip("glide")
    there = tmp_path / "some.pem"
    there.write_text("nothing")
    for path in (there, tmp_path / "none.pem"):
        with pytest.raises(ValueError, match=rf"^{names[0]}='.* cannot be used: "):
            RedisStore("rediss://127.0.0.1:1", **dict.fromkeys(names, path))  # type: ignore[arg-type] # all are paths


async def test_a_path_that_is_too_long() -> None:
    """What valkey-glide does not even try is told when the store is entered."""
    store = RedisStore("unix:///" + 200 * "a")
    with pytest.raises(StoreError, match=r"^unix:///a.*: "):
        await store.__aenter__()
