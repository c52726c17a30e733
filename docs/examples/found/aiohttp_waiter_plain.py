"""aiohttp 3.14.5: a request waits although the connection is free."""

import asyncio

import aiohttp


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer a request, but hold back the last byte of the answer to /slow."""
    head = await reader.readuntil(b"\r\n\r\n")
    rest = b"" if b"/slow" in head else b"k"
    writer.write(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\no"
        + rest
    )
    await reader.read()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    url = f"http://{host}:{port}/"
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def get() -> str:
            async with session.get(url) as answer:
                return await answer.text()

        first = await session.get(f"{url}slow")
        second = asyncio.create_task(get())
        third = asyncio.create_task(get())
        for _ in range(5):
            await asyncio.sleep(0)  # both wait for the first now
        first.close()  # wakes the second,
        second.cancel()  # which is cancelled before it can run
        await asyncio.wait([third], timeout=0.5)
        print("the second is cancelled:", second.cancelled())
        print("the third is answered:", third.done())
        print("one that comes now:", await get())
        print("and after that the third:", await third)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
