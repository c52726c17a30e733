"""Probes under a virtual clock: their thread keeps real time."""

from __future__ import annotations

import http.client

import anyio
from anyio import to_thread

from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor


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
        health.drain()
        assert await to_thread.run_sync(status, probes.address, "/readyz") == 503
    assert not probes.running
