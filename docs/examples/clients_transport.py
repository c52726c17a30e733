"""Five requests to a service that allows two in ten seconds."""

import anyio
import httpx

from mtaio.clients import LimitedTransport

left = [2]


async def answer(request: httpx.Request) -> httpx.Response:
    """Stand in for the service."""
    left[0] -= 1
    if left[0] < 0:
        left[0] = 2
        return httpx.Response(429, headers={"Retry-After": "10"})
    said = {"X-RateLimit-Remaining": str(left[0])}
    return httpx.Response(200, headers=said, text=request.url.path)


async def main() -> None:
    transport = LimitedTransport(httpx.MockTransport(answer), jitter=0)
    start = anyio.current_time()
    async with httpx.AsyncClient(transport=transport) as client:
        for number in range(5):
            response = await client.get(f"http://api/{number}")
            seconds = anyio.current_time() - start
            print(f"{seconds:.0f} s: {response.status_code} {response.text}")
    print(f"refused on the way: {transport.statistics().refused}")


if __name__ == "__main__":
    anyio.run(main)
