"""trio-websocket 0.12.2: ``connect_timeout=0.1`` takes a second."""

import trio
import trio_websocket


async def accept(_: trio.SocketStream) -> None:
    """Accept a connection, say nothing for a second, and hang up."""
    await trio.sleep(1)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, accept, [listener])
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
        begin = trio.current_time()
        try:
            async with trio_websocket.open_websocket_url(
                url, connect_timeout=0.1
            ):
                pass
        except trio_websocket.ConnectionTimeout:
            took = trio.current_time() - begin
            print(
                "a timeout of 0.1 seconds has taken",
                round(took),
                "second, until the server left",
            )
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
