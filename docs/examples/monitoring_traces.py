"""Spans of OpenTelemetry, here with an exporter that keeps them in memory."""

import anyio
import httpx
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mtaio import Retry, TaskExecutor, cached
from mtaio.asgi import AccessLog
from mtaio.monitoring import traces

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(
    SimpleSpanProcessor(exporter)
)  # in a service: a BatchSpanProcessor

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


async def order(request: Request) -> JSONResponse:
    articles = request.path_params["articles"].split("+")
    return JSONResponse(
        await executor.map(price, articles, retry=Retry(3, wait_initial=0.1))
    )


app = AccessLog(Starlette(routes=[Route("/orders/{articles}", order)]))


def show(
    spans: list[ReadableSpan], parent: int | None = None, depth: int = 0
) -> None:
    for span in sorted(spans, key=lambda each: each.start_time or 0):
        if (
            span.context
            and (span.parent.span_id if span.parent else None) == parent
        ):
            errors = [
                (each.attributes or {})["exception.type"]
                for each in span.events
            ]
            print("  " * depth + span.name, *errors)
            show(spans, span.context.span_id, depth + 1)


async def main() -> None:
    traces.record(provider.get_tracer("shop"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://shop"
    ) as client:
        print((await client.get("/orders/cake+tea")).json())
    traces.record(None)  # a service goes on
    show(list(exporter.get_finished_spans()))


if __name__ == "__main__":
    anyio.run(main)
