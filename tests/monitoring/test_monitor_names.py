"""The names that a threshold may have do not depend on the machine."""

from __future__ import annotations

from mtaio.monitoring import ResourceMonitor


async def test_threshold_on_what_is_not_measured_here() -> None:
    """A service configured for its container starts where there is no container, too."""
    monitor = ResourceMonitor()
    monitor.set_threshold("cpu.throttled_ratio", 0.25)
    assert "process.open_files" in monitor.metric_names()
    await monitor.tick()
    assert "cpu.throttled_ratio" in monitor.metric_names()
    assert monitor.firing == []
