"""AnyIO 4.16.0: Task.cancel() loses an item that was handed to a receiver."""

import anyio
from anyio import create_memory_object_stream

from mtaio.testing import Victim, explore, settle


# --8<-- [start:test]
@explore()
async def test_item_is_received_or_still_there(victim: Victim) -> None:
    """An item that was sent is received, or is still in the stream."""
    send, receive = create_memory_object_stream[str](1)
    received: list[str] = []

    async def receiver() -> None:
        received.append(await receive.receive())

    async def impatient() -> None:
        await victim(receiver)

    with send, receive:
        async with anyio.create_task_group() as group:
            group.start_soon(impatient)
            await settle()
            send.send_nowait("parcel")
        there = receive.statistics().current_buffer_used
    assert len(received) + there == 1, "the item is lost"


# --8<-- [end:test]
