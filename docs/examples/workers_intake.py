"""A worker that takes a message when it has room for one, and answers for each."""

import anyio

from mtaio import TaskExecutor
from mtaio.core import Intake

SECONDS = {
    "tea": 0.1,
    "cake": 0.15,
    "rum": 0.2,
    "milk": 0.4,
    "beer": 0.4,
    "wine": 0.4,
}


class Broker:
    """Stands for the client of a message broker."""

    def __init__(self) -> None:
        self.waiting = [*SECONDS]

    async def receive(self) -> str:
        """Wait for an order."""
        await anyio.sleep(0.01)
        return self.waiting.pop(0)

    async def ack(self, order: str) -> None:
        """Forget it."""
        print(f"{anyio.current_time():.2f} s: {order} is done")

    async def nack(self, order: str, error: Exception | None) -> None:
        """Keep it for another worker, or put it aside."""
        if error is None:  # it was cancelled, or never begun
            self.waiting.append(order)
        else:
            print(f"{anyio.current_time():.2f} s: {order} is put aside")


async def deliver(order: str) -> None:
    await anyio.sleep(SECONDS[order])
    if order == "rum":
        raise ValueError("not to minors")


def failed(order: str, error: Exception) -> None:
    print(f"{anyio.current_time():.2f} s: {order} failed: {error}")


async def main() -> None:
    broker = Broker()
    intake = Intake(broker.receive, broker.ack, broker.nack)
    with anyio.move_on_after(
        0.5
    ):  # or SIGTERM, which cancels an Application's services
        await TaskExecutor().for_each(deliver, intake, limit=2, errors=failed)
    print("at the broker:", sorted(broker.waiting))


if __name__ == "__main__":
    anyio.run(main)
