"""
A function that an application runs again and again: the service behind ``@app.every``.

Promise: runs begin when the application has started, and none does once nothing new is accepted; a
run that is going on then has the time that requests in flight have. It is served in the service's
own task, so what the application does with services, it does with this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from mtaio._internal.periodic import Periodic
from mtaio.app._resource import bind_app
from mtaio.core import PeriodicTask

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from mtaio._internal.periodic import Schedule
    from mtaio.app._application import Application, PartInfo, Report

__all__ = ["PeriodicService"]


@dataclass(frozen=True, slots=True)
class PeriodicService:
    """A function that is to run again and again."""

    fn: Callable[..., Any]
    info: PartInfo
    schedule: Schedule
    options: Mapping[str, Any]
    """Those of each run."""
    critical: bool = field(kw_only=True)
    """Whether the application is not ready when the health check fails."""

    def bound(self, app: Application, report: Report) -> Callable[[], Coroutine[Any, Any, object]]:
        """Return what serves it, as a function of no arguments; ``report`` gets its errors."""
        return partial(self._serve, app, report)

    async def _serve(self, app: Application, report: Report) -> None:
        name = self.info.name

        def failed(error: Exception) -> None:
            report(error, {"what": f"the periodic function {name!r}"})

        args = () if bind_app(self.fn, app) is self.fn else (app,)
        run = partial(app.executor.run, self.fn, *args, **self.options)
        periodic = Periodic(name, self.schedule, run, failed)
        task = PeriodicTask(periodic, None)
        app.monitor.watch(task)
        app.health.add(
            name, task.check_health, ttl=0.0, critical=self.critical, failure_threshold=1
        )
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_stop_when_draining, app, periodic)
                await periodic.serve()
                group.cancel_scope.cancel()
        finally:
            app.health.remove(name)
            app.monitor.unwatch(task)


async def _stop_when_draining(app: Application, periodic: Periodic) -> None:
    await app.wait_draining()
    periodic.stop()
