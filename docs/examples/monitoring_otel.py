"""The same figures through OpenTelemetry, here with an in-memory reader."""

import anyio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from mtaio import ConcurrencyLimiter
from mtaio.monitoring import ResourceMonitor
from mtaio.monitoring.otel import observe

# In a service: PeriodicExportingMetricReader(OTLPMetricExporter())
reader = InMemoryMetricReader()
provider = MeterProvider([reader])

monitor = ResourceMonitor()
monitor.watch(ConcurrencyLimiter(4, name="database"))


async def main() -> None:
    async with monitor:
        await monitor.get_current_stats()  # there is a sample now
        observe(provider.get_meter("shop"), monitor)
        exported = reader.get_metrics_data()
    assert exported is not None
    for metric in exported.resource_metrics[0].scope_metrics[0].metrics:
        if metric.name.endswith((".in_use", ".rss")):
            (point,) = metric.data.data_points
            print(metric.name, metric.unit or "-", dict(point.attributes or {}))


if __name__ == "__main__":
    anyio.run(main)
