"""
A monitor with the two usual thresholds, and an emitter for their alerts.

Promise: one event each time a metric exceeds its threshold, and one when it recovers.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, cast

from mtaio._internal import checks
from mtaio.events import EventEmitter
from mtaio.monitoring._monitor import ResourceMonitor

__all__ = ["HealthMonitor"]


class HealthMonitor:
    """
    Emits ``"health_alert"`` when the processor or memory exceeds a threshold.

    The data of the event is a dict with ``metric`` (``"cpu_usage"`` or ``"memory_usage"``),
    ``value`` and ``threshold``. When the metric has recovered, ``"health_recovered"`` follows with
    the same data. Other thresholds of ``monitor`` cause the same events. Errors of listeners are
    logged and counted by the monitor.

    It can be created anywhere and used by one event loop after another. A subclass with a
    constructor of its own has to set ``monitor`` and ``emitter``, or call this one. ``async with``
    calls `start` and `stop`.

    Args:
        monitor: The monitor to use; None to create one.
        emitter: The emitter to use; None to create one.
        cpu: The threshold of ``cpu_usage``, in percent.
        memory: The threshold of ``memory_usage``, in percent.

    Raises:
        ValueError: A threshold is not between 0 and 100.
        TypeError: A threshold is not a number, or ``monitor`` not a `ResourceMonitor`.

    Example:
        ```python
        from typing import Any

        import anyio

        from mtaio.events import Event
        from mtaio.monitoring import HealthMonitor

        health = HealthMonitor(cpu=80.0, memory=90.0)


        @health.emitter.on("health_alert")
        async def page_somebody(event: Event[dict[str, Any]]) -> None:
            print(f"{event.data['metric']} is {event.data['value']:.0f} %")


        async def main() -> None:
            async with health:
                status = await health.get_health_status()
                print(sorted(status))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariant: _handled is the monitor in which the handlers are registered.

    monitor: ResourceMonitor
    """The monitor that takes the samples."""
    emitter: EventEmitter
    """The emitter of the events."""
    cpu: float = 80.0
    """The threshold of ``cpu_usage``, in percent; a change applies from the next `start` on."""
    memory: float = 90.0
    """The threshold of ``memory_usage``, in percent; a change applies from the next `start` on."""
    _handled: ResourceMonitor | None = None

    def __init__(
        self,
        monitor: ResourceMonitor | None = None,
        *,
        emitter: EventEmitter | None = None,
        cpu: float = 80.0,
        memory: float = 90.0,
    ) -> None:
        self.cpu = _percent("cpu", cpu)
        self.memory = _percent("memory", memory)
        if not (monitor is None or isinstance(cast("object", monitor), ResourceMonitor)):
            msg = f"monitor={monitor!r} is not a ResourceMonitor. Pass one, or leave it out."
            raise TypeError(msg)
        self.monitor = ResourceMonitor() if monitor is None else monitor
        self.emitter = EventEmitter() if emitter is None else emitter

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.monitor!r}>"

    async def start(self) -> None:
        """
        Set the thresholds, and start the monitor unless it is running.

        A checkpoint. If it is cancelled, the monitor has not started. See `ResourceMonitor.start`.

        Raises:
            RuntimeError: The monitor runs in another event loop.
        """
        self.monitor.set_threshold("cpu_usage", self.cpu)
        self.monitor.set_threshold("memory_usage", self.memory)
        if self._handled is not self.monitor:
            self._handled = self.monitor
            self.monitor.on_threshold_exceeded(self._alert)
            self.monitor.on_recovered(self._recover)
        await self.monitor.start()

    async def stop(self) -> None:
        """
        Stop the monitor, even one that was passed in, and wait for pending events.

        A checkpoint. If it is cancelled, the monitor is stopped anyway. See `ResourceMonitor.stop`.
        """
        await self.monitor.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    async def get_health_status(self) -> dict[str, Any]:
        """
        Return the state of the process, from its latest sample.

        A checkpoint. It takes a sample if there is none, like `ResourceMonitor.get_current_stats`.

        Returns:
            ``status``: ``"healthy"`` below both thresholds, otherwise ``"degraded"``;
            ``cpu_usage`` and ``memory_usage`` in percent; ``uptime`` of the process in seconds.
        """
        stats = await self.monitor.get_current_stats()
        cpu, memory = stats.cpu.usage_percent, stats.memory.percent
        return {
            "status": "healthy" if cpu < self.cpu and memory < self.memory else "degraded",
            "cpu_usage": cpu,
            "memory_usage": memory,
            "uptime": stats.uptime,
        }

    async def _alert(self, metric: str, value: float, threshold: float) -> None:
        await self._emit("health_alert", metric, value, threshold)

    async def _recover(self, metric: str, value: float, threshold: float) -> None:
        await self._emit("health_recovered", metric, value, threshold)

    async def _emit(self, name: str, metric: str, value: float, threshold: float) -> None:
        data = {"metric": metric, "value": value, "threshold": threshold}
        await self.emitter.emit(name, data)


def _percent(name: str, value: object) -> float:
    way_out = "Pass a percentage."
    percent = checks.number(name, value, way_out=way_out)
    if not 0 <= percent <= 100:  # noqa: PLR2004 - percent
        msg = f"{name}={value!r} is not between 0 and 100. {way_out}"
        raise ValueError(msg)
    return percent
