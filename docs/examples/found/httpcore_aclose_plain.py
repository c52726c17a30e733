"""httpcore 1.0.9, asyncio: a cancelled aclose() leaves connections open."""

import asyncio
import gc

import httpcore

connections: set[asyncio.StreamWriter] = set()


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer requests until the client closes."""
    connections.add(writer)
    while await reader.readline():
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    connections.discard(writer)
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    pool = httpcore.AsyncConnectionPool()
    await asyncio.gather(*(pool.request("GET", url) for _ in range(5)))
    closing = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0)  # it closes the first of them now
    closing.cancel()
    await asyncio.wait([closing])
    await asyncio.sleep(0.2)
    print("connections of the pool:", len(pool.connections))
    print("connections of the server:", len(connections))
    await pool.aclose()
    del pool
    gc.collect()
    await asyncio.sleep(0.2)
    print("when the pool is closed again, and gone:", len(connections))
    for writer in [*connections]:
        writer.transport.abort()
    await asyncio.sleep(0.2)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
