"""A service behind a proxy, with a limit on requests in flight."""

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mtaio import Application, Settings

# In production: Application(), and the variables of the deployment.
settings = Settings(
    health_bind="127.0.0.1:0", trusted_proxies="127.0.0.1", max_in_flight=1
)
app = Application(settings, logging=False, signals=False)


async def hello(request: Request) -> PlainTextResponse:
    await anyio.sleep(0.2)  # the database
    assert request.client is not None
    return PlainTextResponse(f"{request.client.host} by {request.url.scheme}")


app.serve(Starlette(routes=[Route("/", hello)]), bind="127.0.0.1:0")


async def ask(http: httpx.AsyncClient) -> None:
    # The proxy appended the second address; the client sent the first.
    sent = {
        "X-Forwarded-For": "6.6.6.6, 203.0.113.7",
        "X-Forwarded-Proto": "https",
    }
    response = await http.get("/", headers=sent)
    if response.status_code == 503:
        print("503, retry after", response.headers["Retry-After"], "s")
    else:
        print(response.text)


async def main() -> None:
    async with (
        app,
        httpx.AsyncClient(base_url=f"http://{app.addresses[0]}") as http,
        anyio.create_task_group() as group,
    ):
        group.start_soon(ask, http)
        await anyio.sleep(0.1)
        await ask(http)


if __name__ == "__main__":
    anyio.run(main)
