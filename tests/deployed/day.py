"""
A day of the example service on a simulated network, in virtual time, as Prometheus would scrape it.

``python -m tests.deployed.day MIDNIGHT`` writes OpenMetrics with a timestamp for each value, every
two minutes, for ``promtool tsdb create-blocks-from openmetrics``. There are as many requests. The
prices are slow from 12 to 14 o'clock, and from 18 to 19 there are none.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import anyio
import httpx

from mtaio.monitoring import ResourceMonitor, metrics, to_prometheus
from mtaio.testing import Network, run, settle
from tests.programs import ROOT

if TYPE_CHECKING:
    from anyio.abc import ByteStream

HOUR = 3600
DAY = 24 * HOUR
STEP = 120
"""Seconds from one request, and one scrape, to the next."""

noise = random.Random(27)  # noqa: S311 - noise, no secret


def hour() -> float:
    """Return what o'clock it is."""
    return anyio.current_time() / HOUR


async def sell(stream: ByteStream) -> None:
    """Be the upstream: answer one request after another."""
    async with stream:
        while await stream.receive():
            slow = 40 if 12 <= hour() < 14 else 1
            await anyio.sleep(noise.uniform(0.02, 0.06) * slow)
            status, body = (b"500 No", b"") if 18 <= hour() < 19 else (b"200 OK", b'{"price": 2.5}')
            length = str(len(body)).encode()
            await stream.send(
                b"HTTP/1.1 %b\r\ncontent-length: %b\r\n\r\n%b" % (status, length, body)
            )


async def serve_prices() -> None:
    """Listen for the service."""
    async with await anyio.create_tcp_listener(local_port=80) as listener:
        await listener.serve(sell)


def load() -> Any:
    """Import the example service, with an upstream of ours and a cache that keeps all prices."""
    os.environ.update(
        SHOP_UPSTREAM="http://prices", SHOP_BIND="0.0.0.0:80", MTAIO_CACHE_TTL="864000"
    )
    spec = spec_from_file_location("shop", ROOT / "docs" / "examples" / "service" / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    shop = module_from_spec(spec)
    spec.loader.exec_module(shop)
    return shop.app


async def day(app: Any, midnight: float) -> None:
    """Ask for prices, and look at the feed every hour; print what is exported."""

    async def live() -> None:
        async with app:
            await app.wait_closed()

    async with Network(latency=0.002) as net, httpx.AsyncClient(timeout=30) as client:
        net.host("prices").start(serve_prices)
        net.host("shop").start(live)
        await settle()
        for start in range(0, DAY, STEP):
            await anyio.sleep_until(start + STEP / 2)
            await client.get("http://shop/prices", params={"sku": f"{start}"})
            if start % HOUR == 0:
                async with client.stream("GET", "http://shop/feed") as feed:
                    await anext(feed.aiter_lines())
            await anyio.sleep_until(start + STEP)
            show(to_prometheus(metrics(app.monitor.sources())), midnight + start + STEP)
        app.stop_nowait("the day is over")
        await app.wait_closed()


def show(text: str, moment: float) -> None:
    """Print how long requests took, each line with its time."""
    for line in text.splitlines():
        if line.startswith("mtaio_request_metrics_duration_seconds_"):
            print(line, f"{moment:.0f}")  # noqa: T201 - for promtool


def main() -> None:
    """Live through the day, with a sample for each scrape and not each second."""
    rare = partial(ResourceMonitor, interval=STEP)
    with patch("mtaio.app._application.ResourceMonitor", rare):
        app = load()
        logging.disable()
        run(day, app, float(sys.argv[1]))
    print("# EOF")  # noqa: T201 - as above


if __name__ == "__main__":
    main()
