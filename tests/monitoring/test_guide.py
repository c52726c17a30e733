"""
The deployment guide's class for health, as it is written there, runs with mtaio's monitor.

The guide itself is read where it lies in a folder above this checkout; a program of our own with
the same calls runs everywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from mtaio.events import EventEmitter
from mtaio.monitoring import HealthMonitor, ResourceMonitor

if TYPE_CHECKING:
    from mtaio.events import Event

GUIDE: Final = next(
    (
        guide
        for folder in Path(__file__).parents
        if (guide := folder / "shared" / "design" / "deployment-guide.ja.md").is_file()
    ),
    None,
)

OURS: Final = """
from mtaio.events import EventEmitter
from mtaio.monitoring import ResourceMonitor


class HealthMonitor:
    def __init__(self):
        self.monitor = ResourceMonitor()
        self.emitter = EventEmitter()

    async def start(self):
        self.monitor.set_threshold("cpu_usage", 80.0)
        self.monitor.set_threshold("memory_usage", 90.0)

        @self.monitor.on_threshold_exceeded
        async def alert(metric, value, threshold):
            data = {"metric": metric, "value": value, "threshold": threshold}
            await self.emitter.emit("health_alert", data)

        await self.monitor.start()

    async def get_health_status(self) -> dict:
        stats = await self.monitor.get_current_stats()
        return {
            "status": "healthy" if stats.cpu.usage_percent < 80 else "degraded",
            "cpu_usage": stats.cpu.usage_percent,
            "memory_usage": stats.memory.percent,
            "uptime": stats.uptime,
        }
"""


def of_the_guide() -> str:
    """Return the guide's program with the class."""
    assert GUIDE is not None
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "class HealthMonitor:" in block]
    return str(block)


PROGRAMS: Final = {"ours": OURS} | ({} if GUIDE is None else {"the guide's": of_the_guide()})

BASES: Final = {"no base": "class HealthMonitor:", "our base": "class HealthMonitor(Base):"}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    """Return each program in turn."""
    return PROGRAMS[request.param]


def made_by(program: str, *, base: str) -> Any:
    """Run a program, and make the object of its class, with mtaio's own for a base or not."""
    names: dict[str, Any] = {"Base": HealthMonitor}
    exec(program.replace("class HealthMonitor:", BASES[base]), names)  # noqa: S102 - the subject
    return names["HealthMonitor"]()


@pytest.mark.parametrize("base", BASES)
async def test_guide(program: str, base: str) -> None:
    """Its thresholds are set, its handler emits the alert, and its status tells the figures."""
    health = made_by(program, base=base)
    assert isinstance(health.monitor, ResourceMonitor)
    assert isinstance(health.emitter, EventEmitter)
    heard: list[dict[str, Any]] = []

    def hear(event: Event[dict[str, Any]]) -> None:
        heard.append(event.data)

    health.emitter.on("health_alert", hear)

    await health.start()
    assert health.monitor.running
    configured = {each.metric: each.value for each in health.monitor.thresholds}
    assert configured == {"cpu_usage": 80.0, "memory_usage": 90.0}
    status = await health.get_health_status()
    assert status["status"] == ("healthy" if status["cpu_usage"] < 80 else "degraded")
    assert 0 <= status["cpu_usage"] <= 100
    assert 0 < status["memory_usage"] <= 100
    assert status["uptime"] > 0
    health.monitor.set_threshold("memory_usage", 0.0)
    await anyio.sleep(2.5)
    (alert,) = [each for each in heard if each["metric"] == "memory_usage"]
    assert alert["threshold"] == 0.0
    assert alert["value"] > 0
    await health.monitor.stop()


async def test_base_adds_the_block(program: str) -> None:
    """With mtaio's class for a base it can be entered, as the guide's last program does."""
    health = made_by(program, base="our base")
    async with health:
        assert health.monitor.running
    assert not health.monitor.running
