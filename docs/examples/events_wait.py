"""Questions and answers as events: a stream misses none, and wait_for waits for one."""

import anyio
from anyio.abc import TaskStatus

from mtaio import EventEmitter

emitter = EventEmitter()


async def calculator(*, task_status: TaskStatus[None]) -> None:
    async with emitter.stream("question") as questions:
        task_status.started()
        async for question in questions:
            await anyio.sleep(0.1)
            await emitter.emit(
                "answer", question.data * 2, metadata=question.metadata
            )


async def ask(number: int) -> int:
    async with emitter.stream(
        "answer"
    ) as answers:  # before the question: no answer is missed
        await emitter.emit("question", number, metadata={"id": number})
        while True:
            answer = await anext(answers)
            if answer.metadata["id"] == number:
                return int(answer.data)


async def main() -> None:
    async with anyio.create_task_group() as group:
        await group.start(calculator)
        print("4 doubled is", await ask(4))

        group.start_soon(ask, 21)
        answer = await emitter.wait_for("answer", lambda event: event.data > 40)
        print("someone was told", answer.data)

        try:
            await emitter.wait_for("answer", timeout=0.5)
        except TimeoutError as error:
            print(error)
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
