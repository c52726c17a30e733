"""aiohttp 3.14.5: with ``limit=1`` two requests are under way at once."""

import asyncio

import aiohttp

now: set[str] = set()
both = asyncio.Event()


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer /quick at once, and other requests when there are two of them."""
    while head := await reader.readline():
        await reader.readuntil(b"\r\n\r\n")
        path = head.decode().split()[1]
        if path != "/quick":
            now.add(path)
            if len(now) == 2:
                both.set()
            await both.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def get(host: str, path: str) -> None:
            async with session.get(f"http://{host}:{port}{path}") as answer:
                await answer.read()

        await get("127.0.0.1", "/quick")  # leaves a kept-alive connection
        async with asyncio.timeout(5):
            await asyncio.gather(
                get("localhost", "/slow"), get("127.0.0.1", "/too")
            )
    print("under way at once:", sorted(now))
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
