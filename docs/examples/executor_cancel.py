"""Deliver orders for 0.3 seconds; what is not done goes back to the queue."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor()


async def main() -> None:
    queue, orders = anyio.create_memory_object_stream[str](10)

    async def deliver(order: str) -> None:
        try:
            await anyio.sleep(0.2)
        except anyio.get_cancelled_exc_class():
            queue.send_nowait(order)  # begun, but not done
            raise
        print("delivered", order)

    async with queue, orders:
        for order in ("tea", "cake", "milk"):
            await queue.send(order)
        with anyio.move_on_after(0.3):
            await executor.for_each(deliver, orders, limit=1)
        left = sorted(orders.receive_nowait() for _ in range(2))
        print("in the queue:", left)


if __name__ == "__main__":
    anyio.run(main)
