"""Write each answer as it comes, and begin again where the last run ended."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

# --8<-- [start:resume]
from mtaio import TaskExecutor


def read_done(path: Path) -> set[str]:
    if not path.exists():
        return set()
    whole, end, _ = path.read_text().rpartition(
        "\n"
    )  # the last line may be half a line
    path.write_text(whole + end)
    return {json.loads(line)["key"] for line in whole.splitlines()}


async def answer_all(prompts: dict[str, str], path: Path) -> None:
    async def answer(key: str) -> tuple[str, str]:
        return key, await ask(prompts[key])

    left = prompts.keys() - read_done(path)
    with path.open("a") as file:
        async with (
            TaskExecutor(50) as executor,
            executor.stream(answer, left) as answers,
        ):
            async for key, text in answers:
                print(
                    json.dumps({"key": key, "text": text}),
                    file=file,
                    flush=True,
                )


# --8<-- [end:resume]
async def ask(prompt: str) -> str:
    """Ask a model."""
    await anyio.sleep(0.1)
    return prompt.upper()


async def main(path: str) -> None:
    """Answer two prompts, and then three: only the third is asked for."""
    prompts = {"a": "hello", "b": "again"}
    await answer_all(prompts, Path(path))
    await answer_all({**prompts, "c": "at last"}, Path(path))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if sys.argv[1:] else "answers.jsonl")
