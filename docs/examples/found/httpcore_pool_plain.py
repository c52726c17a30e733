"""httpcore 1.0.9, asyncio: a connection that no request owns blocks a pool."""

import asyncio

import httpcore


async def main() -> None:
    answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"]
    network = httpcore.AsyncMockBackend(answer * 9)
    async with httpcore.AsyncConnectionPool(
        max_connections=1, network_backend=network
    ) as pool:
        first = asyncio.create_task(pool.request("GET", "http://example.com/"))
        second = asyncio.create_task(pool.request("GET", "http://example.com/"))
        for _ in range(2):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([second], timeout=0.1)
        print("the first is cancelled:", first.cancelled())
        print("the second is answered:", second.done())
        print("the pool:", *pool.connections)
        second.cancel()


if __name__ == "__main__":
    asyncio.run(main())
