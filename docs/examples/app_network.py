"""A service behind a proxy: whom a request comes from, and what happens at the limit."""

from typing import Any

import anyio
import httpx

from mtaio import Application, Settings

settings = Settings(
    health_bind="127.0.0.1:0", trusted_proxies="127.0.0.1", max_in_flight=1
)
app = Application(settings, logging=False, signals=False)


async def web(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await anyio.sleep(0.2)  # the database
    text = f"{scope['client'][0]} by {scope['scheme']}".encode()
    length = str(len(text)).encode()
    headers = [(b"content-length", length)]
    await send(
        {"type": "http.response.start", "status": 200, "headers": headers}
    )
    await send({"type": "http.response.body", "body": text})


app.serve(web, bind="127.0.0.1:0")


async def ask(http: httpx.AsyncClient) -> None:
    # The proxy has appended the second address; the client itself sent the first.
    said = {
        "X-Forwarded-For": "6.6.6.6, 203.0.113.7",
        "X-Forwarded-Proto": "https",
    }
    response = await http.get("/", headers=said)
    print(
        response.status_code,
        response.text or f"retry after {response.headers['retry-after']} s",
    )


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
