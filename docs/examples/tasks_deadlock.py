"""Two transfers that wait for each other, found by looking at the tasks."""

import anyio

from mtaio import ConcurrencyLimiter
from mtaio.monitoring import TaskNode, tasks

stock = ConcurrencyLimiter(1, name="stock")
invoices = ConcurrencyLimiter(1, name="invoices")


async def transfer(
    first: ConcurrencyLimiter, second: ConcurrencyLimiter
) -> None:
    async with first:
        await anyio.sleep(0.1)
        async with second:  # which the other transfer has taken first
            print("done")


def show_deadlocks() -> None:
    tree = tasks()
    by_id = {
        node.id: node for _, node in tree.walk() if isinstance(node, TaskNode)
    }
    for cycle in tree.cycles:
        print(f"{len(cycle)} tasks wait for each other:")
        members = [by_id[number] for number in cycle]
        for task in sorted(members, key=lambda each: each.name):
            if task.wait is not None:
                print(f"  {task.name} waits for {task.wait.of}")


async def main() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(transfer, stock, invoices, name="transfer 1")
        group.start_soon(transfer, invoices, stock, name="transfer 2")
        await anyio.sleep(5)
        show_deadlocks()
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
