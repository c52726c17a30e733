"""Probes and metrics of several processes at one address."""

from __future__ import annotations

import http.client
import socket
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest
from anyio import to_thread

from mtaio.exceptions import ListenError
from mtaio.monitoring import HealthRegistry, Probes, ProbesRelay, ResourceMonitor, Source
from mtaio.monitoring._relay import merged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONE = """\
# HELP up Whether it is up.
# TYPE up gauge
up 1
# TYPE requests_total counter
requests_total{path="/a b{}"} 3
"""
TWO = """\
# HELP up Whether it is up.
# TYPE up gauge
up NaN
# TYPE seconds histogram
seconds_bucket{le="+Inf"} 2
seconds_sum 0.5
{no sample}

# TYPE requests_total counter
requests_total{path="/",worker="kim",said=",worker=\\"lee\\""} 1e+3
"""


def test_merged() -> None:
    """A family is one group of lines, and each sample has its process's name, but for the own."""
    assert (
        merged({"": "# TYPE workers gauge\nworkers 2\n", "1": ONE, "2": TWO})
        == """\
# TYPE workers gauge
workers 2
# HELP up Whether it is up.
# TYPE up gauge
up{worker="1"} 1
up{worker="2"} NaN
# TYPE requests_total counter
requests_total{worker="1",path="/a b{}"} 3
requests_total{worker="2",path="/",exported_worker="kim",said=",worker=\\"lee\\""} 1e+3
# TYPE seconds histogram
seconds_bucket{worker="2",le="+Inf"} 2
seconds_sum{worker="2"} 0.5
"""
    )


def test_merged_values_with_line_ends() -> None:
    """A value may hold what else some readers take for the end of a line."""
    line = 'waiting{name="a\r# TYPE\u2028b\x0b\x85"} 1\n'
    assert merged({"": "# TYPE waiting gauge\n" + line}) == f"# TYPE waiting gauge\n{line}"


class Answer(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    text: str


def ask(address: str, path: str, method: str = "GET", **fields: str) -> Answer:
    """Ask once, in this thread."""
    host, _, port = address.rpartition(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in fields.items()}
        )
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())


async def answer(address: str, path: str, method: str = "GET", **fields: str) -> Answer:
    """Ask once, in another thread."""
    return await to_thread.run_sync(lambda: ask(address, path, method, **fields))


class Several:
    """Processes, all of which are in this one."""

    def __init__(self) -> None:
        self.targets: dict[str, str] = {}
        self.health = [HealthRegistry(), HealthRegistry()]
        self.address = ""

    def sources(self) -> list[Source]:
        """Return a figure of the relay's owner."""
        return [Source(kind="supervisor", name=None, statistics={"workers": len(self.targets)})]


@asynccontextmanager
async def several(token: str | None = None) -> AsyncIterator[Several]:
    """Run two, and a relay for them."""
    found = Several()
    relay = ProbesRelay(lambda: found.targets, bind="127.0.0.1:0", sources=found.sources)
    async with ResourceMonitor() as monitor, anyio.create_task_group() as group:
        found.address = await group.start(relay.serve)
        first, second = (
            Probes(monitor, each, bind="127.0.0.1:0", token=token) for each in found.health
        )
        async with first, second:
            await monitor.tick()
            found.targets = {"1": first.address, "2": second.address}
            yield found
        group.cancel_scope.cancel()


async def test_probes() -> None:
    """All is well if each says so; where there is none, only the relay itself is alive."""
    async with several() as found:
        paths = ("/livez", "/readyz", "/startupz")
        assert [(await answer(found.address, each)).status for each in paths] == [200] * 3
        found.health[1].set_ready(False)
        assert [(await answer(found.address, each)).status for each in paths] == [200, 503, 200]
        found.targets.clear()
        assert [(await answer(found.address, each)).status for each in paths] == [200, 503, 503]


async def test_metrics_of_all() -> None:
    """Each sample says whose it is; one that does not answer is left out, and fails its probes."""
    async with several() as found:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            nobody = "{}:{}".format(*taken.getsockname())
        found.targets["3"] = nobody
        status, headers, text = await answer(found.address, "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "mtaio_supervisor_workers 3" in text
        uptimes = [line for line in text.splitlines() if line.startswith("mtaio_uptime_seconds{")]
        assert [line.split("}")[0] for line in uptimes] == [
            'mtaio_uptime_seconds{worker="1"',
            'mtaio_uptime_seconds{worker="2"',
        ]
        assert (await answer(found.address, "/livez")).status == 503
        assert (await answer(found.address, "/3/stats")).status == 503
        head = await answer(found.address, "/metrics", "HEAD")
        assert (head.status, head.text) == (200, "")


async def test_pages_of_each() -> None:
    """What a process shows is below its name, and other paths are none."""
    async with several() as found:
        page = await answer(found.address, "/2/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "content-security-policy" in page.headers
        stats = await answer(found.address, "/1/stats?points=2")
        assert (stats.status, stats.text[:1], stats.text[-1:]) == (200, "{", "}")
        tasks = await answer(found.address, "/1/tasks", accept="application/json")
        assert tasks.headers["content-type"] == "application/json"
        for path in ("/", "/1", "/3/stats", "/stats"):
            assert "/1/ /2/" in (await answer(found.address, path)).text
        assert (await answer(found.address, "/2/none")).status == 404
        assert (await answer(found.address, "/metrics", "POST")).status == 405
        found.targets.clear()
        assert "no worker is up" in (await answer(found.address, "/")).text


async def test_processes_decide_who_may_see() -> None:
    """A token is theirs to check; without one, only clients on this machine are let in."""
    async with several("a secret") as found:
        refused = await answer(found.address, "/metrics")
        assert refused.status == 401
        assert "www-authenticate" in refused.headers
        allowed = await answer(found.address, "/metrics", authorization="Bearer a secret")
        assert allowed.status == 200
    async with several() as found:
        assert (await answer(found.address, "/metrics", host="example.org")).status == 403
        assert (await answer(found.address, "/metrics", x_forwarded_for="10.1.1.1")).status == 403


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2000),
    ],
)
async def test_answers_that_are_none(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that answers with something else, or too much, counts as one that does not."""
    monkeypatch.setattr("mtaio.monitoring._relay._MOST", 1000)

    def speak() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        relay = ProbesRelay(lambda: {"1": address}, bind="127.0.0.1:0")
        async with anyio.create_task_group() as group:
            at: Any = await group.start(relay.serve)
            group.start_soon(to_thread.run_sync, speak)
            assert (await answer(at, "/livez")).status == 503
            group.cancel_scope.cancel()


async def test_what_goes_wrong_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """A function of the user's that fails makes a 500, and the relay goes on."""
    targets = {"1": "nowhere"}
    relay = ProbesRelay(lambda: targets, bind="127.0.0.1:0")
    async with anyio.create_task_group() as group:
        at: Any = await group.start(relay.serve)
        assert (await answer(at, "/livez")).status == 500
        targets.clear()
        assert (await answer(at, "/livez")).status == 200
        group.cancel_scope.cancel()
    assert "cannot answer GET /livez" in caplog.text


async def test_where_it_cannot_listen() -> None:
    """An address that is taken is named, and one that is none is refused at once."""
    with pytest.raises(ValueError, match=r"^bind='shop:80' does not begin with an IP address"):
        ProbesRelay(dict, bind="shop:80")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        with pytest.raises(ListenError, match=address):
            await ProbesRelay(dict, bind=address).serve()
