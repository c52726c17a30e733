"""What PyPI says about four packages: two requests at once, five a second."""

import anyio
import httpx

from mtaio import Retry, TaskExecutor

executor = TaskExecutor(max_workers=2)  # two requests at once
pypi = httpx.AsyncClient(base_url="https://pypi.org/pypi/")


@Retry(3, on=httpx.TransportError)
async def about(name: str) -> str:
    answer = await pypi.get(f"{name}/json")
    return f"{name}: {answer.raise_for_status().json()['info']['summary']}"


async def main() -> None:
    names = ["anyio", "httpx", "no-such-package", "trio"]
    got = await executor.map(about, names, rate=5, timeout=10, errors="return")
    print(*got, sep="\n")


anyio.run(main)  # or anyio.run(main, backend="trio")
