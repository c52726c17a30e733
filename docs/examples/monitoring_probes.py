"""Probes and metrics over HTTP, requested as Kubernetes and Prometheus do."""

from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anyio
from anyio import to_thread

from mtaio import RateLimiter
from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor

TOKEN = "kept-in-a-file"
monitor = ResourceMonitor()
health = HealthRegistry()
monitor.watch(RateLimiter(100, name="api"))


def ask(url: str, token: str = "") -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = Request(url, headers=headers)
        with urlopen(request) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        with error:
            return f"{error.code}: {error.read().decode()}"


async def main() -> None:
    async with (
        monitor,
        Probes(monitor, health, bind="127.0.0.1:0", token=TOKEN) as probes,
    ):
        site = f"http://{probes.address}"
        for path in ("livez", "readyz"):
            print(path, await to_thread.run_sync(ask, f"{site}/{path}"), end="")
        health.set_ready(False)
        print("readyz", await to_thread.run_sync(ask, f"{site}/readyz"), end="")
        print(
            "metrics", await to_thread.run_sync(ask, f"{site}/metrics"), end=""
        )
        await monitor.tick()
        text = await to_thread.run_sync(ask, f"{site}/metrics", TOKEN)
        print(
            *[line for line in text.splitlines() if "limiter_waiting" in line],
            sep="\n",
        )


if __name__ == "__main__":
    anyio.run(main)
