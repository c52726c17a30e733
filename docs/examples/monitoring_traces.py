"""Spans of OpenTelemetry, here with an exporter in memory."""

import anyio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)

from mtaio import Retry, TaskExecutor, cached
from mtaio.monitoring import traces

exporter = InMemorySpanExporter()
provider = TracerProvider()
# In a service: a BatchSpanProcessor, and the exporter of your backend.
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("shop")
executor = TaskExecutor(4)
down = {"tea"}


@cached
async def rate(currency: str) -> float:
    await anyio.sleep(0.1)
    return len(currency) / 2


async def price(article: str) -> float:
    if article in down:
        down.remove(article)
        raise ConnectionError("no route to host")
    return len(article) * await rate("EUR")


def show(
    spans: list[ReadableSpan], parent: object = None, depth: int = 0
) -> None:
    for span in sorted(spans, key=lambda each: each.start_time or 0):
        if (span.parent and span.parent.span_id) == parent and span.context:
            print(
                "  " * depth + span.name, *["failed"] * (not span.status.is_ok)
            )
            show(spans, span.context.span_id, depth + 1)


async def main() -> None:
    traces.record(tracer)
    with tracer.start_as_current_span("order"):
        retry = Retry(3, wait_initial=0.1)
        print(await executor.map(price, ["cake", "tea"], retry=retry))
    traces.record(None)  # a service goes on
    show(list(exporter.get_finished_spans()))


if __name__ == "__main__":
    anyio.run(main)
