"""aiohttp 3.14.5: the connection is free, and the request that waits for it goes on waiting."""

import asyncio

import aiohttp


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, with the last byte of the answer still to come."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    await reader.read()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    url = f"http://{host}:{port}/"
    connector = aiohttp.TCPConnector(limit=1)
    async with server, aiohttp.ClientSession(connector=connector) as session:
        first = await session.get(url)
        second = asyncio.create_task(session.get(url))
        third = asyncio.create_task(session.get(url))
        for _ in range(5):
            await asyncio.sleep(0)  # both wait for the first now
        first.close()  # the turn of the second has come,
        second.cancel()  # which is cancelled before it can run
        await asyncio.wait([third], timeout=0.5)
        print("the second is cancelled:", second.cancelled())
        print("the third is answered:", third.done())
        third.cancel()


if __name__ == "__main__":
    asyncio.run(main())
