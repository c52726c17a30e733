"""Probes under a virtual clock: their thread keeps real time."""

from __future__ import annotations

import http.client
import json
from functools import partial
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anyio
import pytest
from anyio import to_thread

from mtaio.app import Application
from mtaio.config import Settings
from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor
from mtaio.monitoring.asgi import health_app

if TYPE_CHECKING:
    from collections.abc import Callable


def status(address: str, path: str) -> int:
    """Return the status of an answer, waited for in this thread."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


async def test_virtual_clock() -> None:
    """Tests may start probes and ask them; virtual time goes on between the questions."""
    health = HealthRegistry()
    health.add("always", lambda: True)
    async with ResourceMonitor() as monitor, Probes(monitor, health, bind="127.0.0.1:0") as probes:
        for path in ("/livez", "/readyz", "/startupz", "/metrics", "/stats?points=10"):
            assert await to_thread.run_sync(status, probes.address, path) == 200
            await anyio.sleep(60)
        health.set_ready(False)
        assert await to_thread.run_sync(status, probes.address, "/readyz") == 503
    assert not probes.running


def name_and_tokens(address: str) -> tuple[str, int]:
    """Return the name of the service, and the status of a wrong token's answer."""
    url = f"http://{address}/stats"
    with urlopen(Request(url, headers={"Authorization": "Bearer secret"})) as answer:
        name = json.load(answer)["name"]
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(url, headers={"Authorization": "Bearer guess"}))
    refused.value.close()
    return name, refused.value.code


async def test_name_and_wrong_tokens() -> None:
    """The page is headed by the application's name, if it has one; wrong tokens are counted."""
    settings = Settings(health_bind="127.0.0.1:0", health_token="secret")  # noqa: S106 - of a test
    monitor = ResourceMonitor(name="measures")
    app = Application(settings, name="shop", monitor=monitor, signals=False, logging=False)
    probes = app.probes
    assert probes is not None
    assert probes.statistics().wrong_tokens == 0
    async with app:
        found = await to_thread.run_sync(name_and_tokens, probes.address)
        assert found == ("shop", 401)
        assert probes.statistics().wrong_tokens == 1
        assert probes.statistics().answers == {("/stats", 200): 1, ("/stats", 401): 1}
        assert "probes.answers" in app.monitor.metric_names()
    async with monitor, Probes(monitor, bind="127.0.0.1:0", token="secret") as probes:  # noqa: S106 - of a test
        assert await to_thread.run_sync(name_and_tokens, probes.address) == ("measures", 401)


@pytest.mark.parametrize(
    "make",
    [ResourceMonitor, partial(Probes, ResourceMonitor()), partial(health_app, ResourceMonitor())],
)
def test_name_is_a_text(make: Callable[..., object]) -> None:
    """A name that no page could show is refused where it is given."""
    with pytest.raises(TypeError, match=r"^name=b'x' is a bytes, not a str\. Pass a short name"):
        make(name=b"x")
