"""The monitor of the deployment guide, made whole: thresholds, events, status, start and stop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.events import EventEmitter
from mtaio.monitoring import HealthMonitor, ResourceMonitor
from mtaio.testing import run
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from mtaio.events import Event


def heard_by(health: HealthMonitor) -> list[tuple[str, dict[str, Any]]]:
    """Return a list of the events of a monitor, which grows."""
    heard: list[tuple[str, dict[str, Any]]] = []

    def hear(event: Event[dict[str, Any]]) -> None:
        heard.append((event.name, event.data))

    health.emitter.on("*", hear)
    return heard


async def test_alert_and_recovery() -> None:
    """One event when memory exceeds its threshold, and one when it no longer does."""
    health = HealthMonitor(memory=0.0, cpu=100.0)
    heard = heard_by(health)
    async with health:
        for _ in range(3):
            await health.monitor.tick()
        ((name, data),) = heard
        assert name == "health_alert"
        assert set(data) == {"metric", "value", "threshold"}
        assert (data["metric"], data["threshold"]) == ("memory_usage", 0.0)
        assert 0 < data["value"] <= 100
        assert (await health.get_health_status())["status"] == "degraded"
        health.memory = 100.0
        await health.start()
        await health.monitor.tick()
        assert [name for name, _ in heard] == ["health_alert", "health_recovered"]
        assert heard[1][1]["metric"] == "memory_usage"


async def test_status() -> None:
    """The status tells the figures and what they mean, whether the monitor runs or not."""
    health = HealthMonitor(cpu=100.0, memory=100.0)
    health.cpu = health.memory = math.inf
    status = await health.get_health_status()
    assert status["status"] == "healthy"
    assert set(status) == {"status", "cpu_usage", "memory_usage", "uptime"}
    assert 0 <= status["cpu_usage"] <= 100
    assert 0 < status["memory_usage"] <= 100
    assert status["uptime"] > 0
    health.cpu = 0.0
    assert (await health.get_health_status())["status"] == "degraded"


async def test_starts_and_stops() -> None:
    """Samples are taken within the block; starting twice registers nothing twice."""
    health = HealthMonitor(memory=0.0)
    heard = heard_by(health)
    assert repr(health) == "<HealthMonitor of <ResourceMonitor not running>>"
    async with health as entered:
        assert entered is health
        assert health.monitor.running
        await health.start()
        await anyio.sleep(3)
        assert [data["metric"] for _, data in heard].count("memory_usage") == 1
    assert not health.monitor.running
    await health.stop()


async def test_given_monitor_and_emitter() -> None:
    """They are used as they are, and other thresholds have the same events."""
    monitor, emitter = ResourceMonitor(interval=0.25), EventEmitter()
    health = HealthMonitor(monitor, emitter=emitter, cpu=100, memory=100)
    assert health.monitor is monitor
    assert health.emitter is emitter
    heard = heard_by(health)
    monitor.gauge("queue_depth", lambda: 3.0)
    monitor.set_threshold("queue_depth", 2.0)
    async with health:
        await monitor.tick()
        await monitor.tick()
    assert heard == [
        ("health_alert", {"metric": "queue_depth", "value": 3.0, "threshold": 2.0}),
    ]


async def test_listener_that_fails() -> None:
    """What a listener raises is counted by the monitor, which goes on."""
    health = HealthMonitor(memory=0.0, cpu=100.0)

    @health.emitter.on("health_alert")
    def fail(_event: Event[Any]) -> None:
        raise ZeroDivisionError

    async with health:
        await health.monitor.tick()
        await health.monitor.tick()
        assert health.monitor.running
    assert health.monitor.statistics().handlers_failed == 1


def test_one_loop_after_another() -> None:
    """It may be made where no loop runs, and starts in one after another."""
    health = HealthMonitor(memory=0.0, cpu=100.0)
    heard = heard_by(health)

    async def main() -> None:
        async with health:
            await health.monitor.tick()
        assert [name for name, _ in heard] == ["health_alert"]

    for backend in (*BACKENDS, *BACKENDS):
        run(main, backend=backend)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cpu": 101}, ValueError, r"^cpu=101 is not between 0 and 100\. Pass a percentage\.$"),
        ({"memory": -1}, ValueError, r"^memory=-1 is not between 0 and 100\."),
        ({"memory": math.nan}, ValueError, r"^memory=nan is not a number\."),
        ({"cpu": "80"}, TypeError, r"^cpu='80' is a str, not a number\."),
        ({"monitor": 5}, TypeError, r"^monitor=5 is not a ResourceMonitor\. Pass one, or leave"),
    ],
    ids=["above", "below", "NaN", "text", "monitor"],
)
def test_refusals(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """A threshold is a percentage, and a monitor is a monitor."""
    with pytest.raises(error, match=message):
        HealthMonitor(**options)
