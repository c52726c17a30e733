"""httpcore 1.0.9: requests cancelled in the TLS handshake leave sockets."""

import asyncio
import gc

import httpcore

count = 0


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Accept a connection and say nothing, as an overloaded server does."""
    global count
    count += 1
    await reader.read()  # until the client closes it
    count -= 1
    writer.close()


async def main() -> None:
    gc.disable()  # so that none runs by chance
    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with httpcore.AsyncConnectionPool() as pool:
        for _ in range(5):
            try:
                async with asyncio.timeout(0.1):
                    await pool.request("GET", f"https://127.0.0.1:{port}/")
            except TimeoutError:
                pass
        print("connections of the pool:", len(pool.connections))
    await asyncio.sleep(0.2)
    print("the pool is closed, and connections are open:", count > 0)
    gc.collect()
    gc.enable()
    await asyncio.sleep(0.2)
    print("and after a garbage collection:", count > 0)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
