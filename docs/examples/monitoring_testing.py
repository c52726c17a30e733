"""Last week's incident, replayed against this week's alerts in virtual time."""

from collections.abc import Callable

import anyio

import mtaio.testing
from mtaio.monitoring import ResourceMonitor

INCIDENT = [
    (40, 602),
    (95, 20),
    (50, 281),
    (120, 900),
    (30, 600),
]  # depth and seconds


def set_alerts(monitor: ResourceMonitor, depth: Callable[[], float]) -> None:
    """Set the alerts; the service calls this, too."""
    monitor.gauge("queue_depth", depth)
    monitor.set_threshold(
        "queue_depth", 80, clear=60, for_seconds=60, cooldown=600
    )


async def main() -> None:
    depth = 0
    monitor = ResourceMonitor(interval=5)
    set_alerts(monitor, lambda: depth)
    told: list[float] = []

    @monitor.on_threshold_exceeded
    async def tell(*_: object) -> None:
        told.append(anyio.current_time())

    async with monitor:
        for depth, seconds in INCIDENT:  # noqa: B007 - the gauge reads it
            await anyio.sleep(seconds)

    assert told == [
        965
    ]  # not for the 20 s peak; a minute into the 15-minute one
    for alert in monitor.alerts:
        print(
            f"{alert.metric} {alert.state} at {alert.value:g} after {alert.seconds:g} s"
        )


if __name__ == "__main__":
    mtaio.testing.run(main)
