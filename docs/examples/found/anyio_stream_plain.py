"""AnyIO 4.16.0 and asyncio: the item is neither received nor in the stream."""

import asyncio

from anyio import create_memory_object_stream


async def main() -> None:
    send, receive = create_memory_object_stream[str](1)
    with send, receive:
        receiver = asyncio.create_task(receive.receive())
        for _ in range(5):
            await asyncio.sleep(0)  # the receiver waits now
        send.send_nowait("parcel")
        receiver.cancel()
        await asyncio.wait([receiver])
        print("the receiver is cancelled:", receiver.cancelled())
        print("items in the stream:", receive.statistics().current_buffer_used)


if __name__ == "__main__":
    asyncio.run(main())
