"""A job is told to stop half-way; its next run does the rest."""

from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from mtaio import Application, TaskExecutor
from mtaio.core import Journal

app = Application(name="survey", probes=False, logging=False)
executor = TaskExecutor(max_workers=10)
answers = Path("answers.jsonl")
asked: list[str] = []


async def ask(question: str) -> str:
    asked.append(question)
    await anyio.sleep(0.2)  # stands for a model that is paid by the call
    return question.upper()


@app.job
async def survey() -> None:
    questions = [f"question {number}" for number in range(100)]
    journal = Journal[str](answers)
    await executor.for_each(
        ask, questions, retry=3, journal=journal, until=app.wait_draining
    )


async def main() -> None:
    global answers
    with TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.jsonl"
        async with app:
            await anyio.sleep(0.5)
            app.stop_nowait("deployment")  # as SIGTERM does
            await app.wait_closed()
        print(f"{len(asked)} asked, {app.statistics().jobs} job not complete")
        async with app:
            await app.wait_closed()
        print(f"{len(asked)} asked, {app.statistics().jobs} jobs not complete")
        print(f"{len(dict(Journal[str](answers).entries()))} answers")


if __name__ == "__main__":
    anyio.run(main)  # a program of its own has app.run() here
