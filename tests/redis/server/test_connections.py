"""The ways to a server: TLS, sockets in the file system, passwords, clusters, replicas."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.exceptions import StoreError
from mtaio.redis import RedisRateLimiter, RedisStore, TieredCache
from tests.redis.server.test_store import Signals, until_up
from tests.redis.servers import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.redis.servers import Server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority and a certificate that it has signed for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")

    def openssl(*args: str) -> None:
        subprocess.run([str(program), *args], cwd=folder, check=True, capture_output=True)  # noqa: S603 - ours

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    openssl(*new, "-keyout", "key.pem", "-out", "request", "-subj", "/CN=mtaio")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl("x509", "-req", "-in", "request", "-out", "cert.pem", "-days", "2", *signed)
    return folder


async def test_tls(certificates: Path) -> None:
    """The server is trusted by the given authority, and knows the client by its certificate."""
    port = free_port()
    ca, cert, key = (certificates / f"{name}.pem" for name in ("ca", "cert", "key"))
    options = (
        *("--tls-port", str(port), "--tls-cert-file", str(cert)),
        *("--tls-key-file", str(key), "--tls-ca-cert-file", str(ca)),
    )
    with serving("redis-server", *options):
        trusted = RedisStore(
            f"rediss://127.0.0.1:{port}", timeout=5, ca_file=ca, cert_file=cert, key_file=key
        )
        async with trusted as store:
            await store.ping()
            subscribed = Signals()
            async with store.subscribe(["a"], lambda *_: None, subscribed.count):
                await subscribed.wait(1)
        url = f"rediss://127.0.0.1:{port}"
        assert "invalid peer certificate" in await why(RedisStore(url, timeout=10))
        assert "not valid for name" in await why(
            RedisStore(f"rediss://localhost:{port}", timeout=10, ca_file=ca)
        )
        for stranger in (  # trusts, but is not trusted; does not speak TLS
            RedisStore(url, timeout=10, ca_file=ca),
            RedisStore(f"redis://127.0.0.1:{port}", timeout=10),
        ):
            assert "the connection was closed by the server" in await why(stranger)


async def test_server_without_tls(shared_server: Server) -> None:
    """It does not answer to TLS, and the error says what that may mean."""
    store = RedisStore(f"rediss://127.0.0.1:{shared_server.port}", timeout=0.3)
    assert "A server without TLS does not answer to rediss://." in await why(store)


async def test_connections_that_fail(shared_server: Server) -> None:
    """The error says why: nothing listens, the host or the database does not exist."""
    place = f"127.0.0.1:{shared_server.port}"
    refused, unknown, database = (
        RedisStore(url, timeout=10)
        for url in (
            f"redis://127.0.0.1:{free_port()}",
            f"redis://{'x' * 64}.invalid",  # longer than a label may be: nobody is asked
            f"redis://{place}/99",
        )
    )
    assert "Connection refused" in await why(refused)
    assert "failed to lookup address" in await why(unknown)
    assert "refused to switch database" in await why(database)
    alone = RedisStore(f"redis://{place}", timeout=0.3, cluster=True)
    assert "A server that is in no cluster does not answer" in await why(alone)
    several = RedisStore(f"redis://127.0.0.1:{free_port()},{place}", timeout=10)
    async with several as store:
        await store.ping()


async def why(store: RedisStore) -> str:
    """Return the reason why it cannot be reached."""
    async with store:
        with pytest.raises(StoreError, match=f"^{store.name}") as caught:
            await store.ping()
    assert caught.value.server == store.name
    return str(caught.value)


async def test_socket_in_the_file_system() -> None:
    """A server is reached by its socket, in the database that the URL names."""
    with serving("valkey-server", "--unixsocket", "socket") as server:
        async with RedisStore(f"unix://{server.folder}/socket?db=3") as store:
            await until_up(store)
            await store.command("SET", "here", "3")
        async with RedisStore(f"redis://127.0.0.1:{server.port}/3") as store:
            assert await store.command("GET", "here") == b"3"


async def test_password() -> None:
    """The password of the URL is used, and shown by nothing."""
    with serving("redis-server", "--requirepass", "se/cret") as server:
        url = f"redis://:se%2Fcret@127.0.0.1:{server.port}"
        async with RedisStore(url) as store:
            await store.ping()
            assert "cret" not in repr(store)
        async with RedisStore(url.replace("se", "no")) as store:
            with pytest.raises(StoreError, match=r"^redis://127\.0\.0\.1") as caught:
                await store.ping()
            assert "cret" not in str(caught.value)


@pytest.fixture(scope="module", params=["redis", "valkey"])
def cluster(request: pytest.FixtureRequest) -> Generator[list[Server]]:
    """Return the three nodes of a cluster."""
    kind = request.param
    with ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port")
        nodes = [
            stack.enter_context(serving(f"{kind}-server", *options, str(free_port())))
            for _ in range(3)
        ]
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        nodes[0].ask("--cluster", "create", *addresses, "--cluster-yes")
        for node in nodes:
            node.wait_for("cluster_state:ok", "cluster", "info")
        yield nodes


async def test_cluster(cluster: list[Server], anyio_backend_name: str) -> None:
    """Scripts find their node, and each node has the messages."""
    names = [f"{anyio_backend_name} {number}" for number in range(8)]  # full for each backend
    url = "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster[:2])
    async with RedisStore(url, cluster=True) as store:
        await until_up(store)
        limiters = [RedisRateLimiter(store, name, 1, burst=100) for name in names]
        for limiter in limiters:
            await limiter.acquire(100)
        assert not await limiters[0].try_acquire(50)
        got: list[bytes] = []
        subscribed, heard = Signals(), anyio.Event()

        def receive(_channel: str, message: bytes) -> None:
            got.append(message)
            heard.set()

        async with store.subscribe(["a"], receive, subscribed.count):
            await subscribed.wait(1)
            await store.publish("a", "hello")
            await heard.wait()
        assert got == [b"hello"]


async def test_primary_among_several() -> None:
    """Of several nodes the primary is used, also after another has taken its place."""
    with (
        serving("redis-server", "--repl-diskless-sync-delay", "0") as one,
        serving("redis-server", "--replicaof", f"127.0.0.1 {one.port}") as two,
    ):
        url = f"redis://127.0.0.1:{two.port},127.0.0.1:{one.port}"
        async with RedisStore(url) as store:
            await until_up(store)
            await store.command("SET", "a", "1")
            two.wait_for("1", "get", "a")
            one.kill()
            two.ask("replicaof", "no", "one")
            await until_up(store)
            assert await store.command("GET", "a") == b"1"
            await store.command("SET", "a", "2")


async def test_a_cache_on_a_cluster(cluster: list[Server]) -> None:
    """Keys of many slots are read, written and cleared together, whatever they have in braces."""
    url = "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster[:2])
    async with RedisStore(url, cluster=True, timeout=10) as store:
        await until_up(store)
        one, two = (TieredCache[Any](store, "a*b", check_interval=0.05) for _ in range(2))
        async with one, two, TieredCache[Any](store, "a_b") as other:
            await other.set("key", 1)
            while not (one.statistics().listening and two.statistics().listening):  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.01)
            values: dict[str, Any] = {f"{{{number}}}": number for number in range(120)} | {
                "}{": 1,
                "}x": 2,
                "\u2603": 3,
            }
            await one.set_many(values, tags={"all", "\u2603}"})
            assert await two.get_many(["none", *values]) == values
            assert await two.increment("}x", -5) == -3
            assert await one.delete_many(["}{", "none", "{5}"]) == 2
            assert await one.touch("{7}", 100)
            await one.invalidate_tag("\u2603}")
            while two.statistics().near_size:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)
            assert await two.get_many(values) == {}
            await one.set_many(values, tags={"all"})
            await one.set("\u2603", 4)
            assert await two.get_many(values) == values | {"\u2603": 4}
            await one.clear()
            while two.statistics().near_size:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)
            assert await two.get_many(values) == {}
            assert await keys_of(store) == {b"mtaio:cache:a_b:{:key}"}


async def keys_of(store: RedisStore) -> set[bytes]:
    """Return the keys of caches."""
    keys: set[bytes] = set()
    cursor, found = await store.scan("mtaio:cache:*")
    keys.update(found)
    while cursor is not None:
        cursor, found = await store.scan("mtaio:cache:*", cursor)
        keys.update(found)
    return keys
