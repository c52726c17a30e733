"""Messages of a broker under many schedules: one answer each, and never too many in hand."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import TaskExecutor
from mtaio.testing import assert_quiescent
from tests.core.broker import Broker
from tests.explored.executor_stage import caught, explored

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


class Counted(Broker):
    """A broker that never gets two answers, and whose messages in hand are few."""

    def __init__(self, sim: Simulation, messages: int, most: int, **options: Any) -> None:
        super().__init__(range(messages), **options)
        self.answers: Counter[int] = Counter()
        self.messages = messages
        sim.always(lambda: len(self.hand) <= most and max(self.answers.values(), default=0) <= 1)

    async def ack(self, message: int) -> None:
        """Take note that a message is done."""
        self.answers[message] += 1
        await super().ack(message)

    async def nack(self, message: int, error: Exception | None) -> None:
        """Take a message back."""
        self.answers[message] += 1
        await super().nack(message, error)

    def assert_answered(self, done: list[int]) -> None:
        """Assert that what is not here any more was answered, and as it ended."""
        assert self.hand == set()
        assert sorted(self.acked) == sorted(done)
        assert sorted([*self.answers, *self.left]) == list(range(self.messages))
        assert sorted([*self.acked, *self.returned(), *self.failed()]) == sorted(self.answers)


@explored
@pytest.mark.parametrize("many", [0, 2])
async def test_one_answer(sim: Simulation, victim: Victim, many: int) -> None:
    """Whenever the call is struck: the victim is the task that makes it."""
    broker = Counted(sim, 3, 2 + max(many - 1, 0), many=many)
    executor, done = TaskExecutor(), list[int]()

    async def handle(message: int) -> None:
        await checkpoint()
        if message == 1:
            raise ValueError(message)
        done.append(message)

    async def call() -> None:
        _, errors = await caught(_for_each, executor, handle, broker)
        assert all(isinstance(error, ValueError) for error in errors)

    await victim(call)
    broker.assert_answered(done)
    assert_quiescent(executor)


async def _for_each(executor: TaskExecutor, handle: Any, broker: Broker) -> None:
    await executor.for_each(handle, broker.intake(), limit=2)


@explored
async def test_shared_slots(sim: Simulation, victim: Victim) -> None:
    """Another call takes slots meanwhile: one message waits in hand for one at most."""
    broker = Counted(sim, 2, 2)
    executor, done = TaskExecutor(1), list[int]()

    async def handle(message: int) -> None:
        await checkpoint()
        done.append(message)

    async def other() -> None:
        for _ in range(2):
            await executor.run(checkpoint)

    async def call() -> None:
        await executor.for_each(handle, broker.intake())

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await victim(call)
    broker.assert_answered(done)
    assert_quiescent(executor)


@explored
async def test_stream_that_is_left(sim: Simulation, victim: Victim) -> None:
    """A consumer that leaves: what ran is given back, and what was done stays done."""
    broker = Counted(sim, 3, 2)
    executor, done = TaskExecutor(2), list[int]()

    async def handle(message: int) -> int:
        await checkpoint()
        done.append(message)
        return message

    async def consume() -> None:
        async with executor.stream(handle, broker.intake(), max_pending=1) as results:
            async for _ in results:
                break

    await victim(consume)
    broker.assert_answered(done)
    assert_quiescent(executor)
