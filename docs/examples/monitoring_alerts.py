"""One queue, one hour, and how often four thresholds call someone."""

import random
from collections import Counter
from typing import Any

import anyio

import mtaio.testing
from mtaio.monitoring import ResourceMonitor

PLANS: dict[str, dict[str, Any]] = {
    "the threshold alone": {},
    "clear=60": {"clear": 60},
    "clear=60, for_seconds=30": {"clear": 60, "for_seconds": 30},
    "clear=60, for_seconds=30, cooldown=600": {
        "clear": 60,
        "for_seconds": 30,
        "cooldown": 600,
    },
}


def depth_at(second: int, noise: random.Random) -> float:
    """Return about 50, in bursts 85, in the incident 110."""
    depth = 50 + noise.uniform(-15, 15)
    if second % 300 < 15:
        depth += 35  # a burst of orders, which needs no action
    if 2400 <= second < 3000 and second % 200 < 150:
        depth += 60  # the database fails on and off
    return depth


async def main() -> None:
    depth = 0.0
    monitor = ResourceMonitor(interval=1)
    for plan, terms in PLANS.items():
        monitor.gauge(plan, lambda: depth)  # four times the same figure
        monitor.set_threshold(plan, 80, **terms)
    calls = Counter[str]()

    @monitor.on_threshold_exceeded
    def call(metric: str, *_: float) -> None:
        calls[metric] += 1

    noise = random.Random(7)
    async with monitor:
        await anyio.sleep(0.5)  # between two samples
        for second in range(3600):
            depth = depth_at(second, noise)
            await anyio.sleep(1)
    for plan in PLANS:
        print(f"{calls[plan]:3} {plan}")


if __name__ == "__main__":
    mtaio.testing.run(main)  # an hour in a second
