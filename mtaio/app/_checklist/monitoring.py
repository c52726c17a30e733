"""The checklist, monitoring: health checks, probes, thresholds, alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mtaio.app._checklist._item import ask, check, ok, warn
from mtaio.app._checklist._look import health_address

if TYPE_CHECKING:
    from mtaio.app._checklist._item import Finding
    from mtaio.app._checklist._look import Look

_PERCENT: Final = 100


@check("monitoring")
def health_checks(look: Look) -> Finding | None:
    if look.app is None:
        return None
    count = look.app.health.statistics().checks
    if not count:
        return warn(
            "none: ready only means that the event loop answers",
            'Add one for what a request needs: @app.health_check("database").',
        )
    return ok(f"{count} registered")


@check("monitoring")
def probes(look: Look) -> Finding | None:
    if look.app is None:
        return None
    if look.app.probes is None:
        return warn(
            "off: /livez, /readyz and /metrics are not served",
            "Leave out probes=False, or serve mtaio.monitoring.asgi.health_app yourself.",
        )
    return ok(f"/livez, /readyz and /metrics at {look.settings.health_bind}")


@check("monitoring")
def probe_address(look: Look) -> Finding | None:
    address = health_address(look)
    if address is None:
        return None
    label = look.label("health_bind")
    if not address.port:
        return warn(
            f"{label}={address} is a different port each time", f"Give {label} a fixed port."
        )
    if look.machine.supervisor == "kubernetes" and address.is_local:
        return warn(
            f"{label}={address}: the kubelet probes from outside the pod, and gets no answer",
            f"Set {label}=0.0.0.0:{address.port}, and a token with MTAIO_HEALTH_TOKEN_FILE.",
        )
    return ok(str(address))


@check("monitoring")
def thresholds(look: Look) -> Finding:
    app = look.app
    limits = (
        {"cpu_usage": look.settings.cpu_threshold, "memory_usage": look.settings.memory_threshold}
        if app is None
        else {each.metric: each.value for each in app.monitor.thresholds}
    )
    percents = ("cpu_usage", "memory_usage")
    effective = {k: v for k, v in limits.items() if k not in percents or v < _PERCENT}
    if not effective:
        return warn(
            "none: nothing raises an alert",
            "Set MTAIO_CPU_THRESHOLD=80 and MTAIO_MEMORY_THRESHOLD=90.",
        )
    return ok(", ".join(f"{name} {value:g}" for name, value in effective.items()))


@check("monitoring")
def alerts(look: Look) -> Finding | None:
    app = look.app
    if app is None:
        return None
    count = app.emitter.listener_count("monitor.threshold_exceeded")
    if not count:
        return ask(
            "who receives alerts? The emitter has no listener for them",
            'Send it on in @app.emitter.on("monitor.threshold_exceeded"), or set alerts up in '
            "Prometheus.",
        )
    return ok(f"monitor.threshold_exceeded has listeners: {count}")
