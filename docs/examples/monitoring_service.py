"""A service with probes, which drains before it stops."""

import os
from pathlib import Path

import anyio

from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor

monitor = ResourceMonitor()
health = HealthRegistry()


def read_token() -> str | None:
    """Return the token that the cluster has mounted, None outside of it."""
    path = Path("/run/secrets/probes/token")
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


@health.check("database", timeout=1.0, failures=3)
async def ask_database() -> None:
    await anyio.sleep(0.01)  # SELECT 1


@health.check("first prices", kind="startup")
async def have_prices() -> bool:
    return True


async def serve(stopping: anyio.Event, drain_delay: float) -> None:
    bind = os.environ.get("SHOP_PROBES", "127.0.0.1:0")  # in the cluster: 0.0.0.0:9464
    async with monitor, Probes(monitor, health, bind=bind, token=read_token()):
        print("ready:", (await health.report()).ready)
        await stopping.wait()
        health.drain()  # /readyz says 503 from here on
        await anyio.sleep(drain_delay)  # requests still arrive, and are answered
        print("ready:", (await health.report()).ready)
        # here: end the server, which waits for its last requests


async def main() -> None:
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(serve, stopping, 0.1)  # 5 s in a cluster
        await anyio.sleep(0.3)
        stopping.set()  # in a service: a task that waits in anyio.open_signal_receiver(SIGTERM)


if __name__ == "__main__":
    anyio.run(main)
