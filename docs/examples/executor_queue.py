"""What a stopped call has taken from a queue goes back."""

import anyio

from mtaio import TaskExecutor


async def main() -> None:
    queue, orders = anyio.create_memory_object_stream[str](10)

    async def deliver(order: str) -> None:
        try:
            await anyio.sleep(0.2)
        except anyio.get_cancelled_exc_class():
            queue.send_nowait(
                order
            )  # it was begun and is not done: give it back
            raise
        print("delivered", order)

    async with queue, orders:
        for order in ("tea", "cake", "milk"):
            await queue.send(order)
        with anyio.move_on_after(
            0.3
        ):  # or SIGTERM, which cancels an Application's services
            await TaskExecutor().for_each(deliver, orders, limit=1)
        print(
            "in the queue:", sorted(orders.receive_nowait() for _ in range(2))
        )


if __name__ == "__main__":
    anyio.run(main)
