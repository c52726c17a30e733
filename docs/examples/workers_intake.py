"""A worker that takes a message when it has room, and answers for each."""

import anyio

from mtaio import TaskExecutor
from mtaio.core import Intake

SECONDS = {"tea": 0.1, "cake": 0.15, "rum": 0.2, "milk": 0.4, "beer": 0.4}

executor = TaskExecutor()


class Broker:
    """Stands for the client of a message broker."""

    def __init__(self) -> None:
        self.waiting = [*SECONDS]
        self.aside: list[str] = []

    async def receive(self) -> str:
        """Wait for an order."""
        await anyio.sleep(0.01 if self.waiting else 3600)
        return self.waiting.pop(0)

    async def ack(self, order: str) -> None:
        """Forget the order: it is done."""
        print("done:", order)

    async def nack(self, order: str, error: Exception | None) -> None:
        """Put aside what failed; what was cancelled waits again."""
        (self.aside if error else self.waiting).append(order)


async def deliver(order: str) -> None:
    await anyio.sleep(SECONDS[order])
    if order == "rum":
        raise ValueError("not to minors")


def report(order: str, error: Exception) -> None:
    print(f"{order} failed: {error}")


async def main() -> None:
    broker = Broker()
    intake = Intake(broker.receive, broker.ack, broker.nack)
    with anyio.move_on_after(0.5):  # as SIGTERM does in an application
        await executor.for_each(deliver, intake, limit=2, errors=report)
    print("waiting:", sorted(broker.waiting), "put aside:", broker.aside)


if __name__ == "__main__":
    anyio.run(main)
