"""
Ask for each URL in a file; run it again, and it goes on where it ended.

    pip install '.[cli,httpx]'    # in a checkout of mtaio
    python links.py urls.txt --output statuses.jsonl
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from functools import partial
from pathlib import Path

import anyio
import httpx

from mtaio import RateLimiter, Retry, TaskExecutor
from mtaio.core import Journal, progress

TRIO = {"restrict_keyboard_interrupt_to_checkpoints": True}


def status(error: Exception) -> int:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code
    return 0


def is_failure(error: Exception) -> bool:
    lost = isinstance(error, httpx.TransportError | TimeoutError)
    return lost or status(error) >= 500


async def status_of(client: httpx.AsyncClient, url: str) -> int:
    async with client.stream("GET", url) as answer:
        return answer.raise_for_status().status_code


async def check(
    urls: list[str],
    output: Path,
    limit: int,
    rate: int,
    client: httpx.AsyncClient,
) -> int:
    """Ask for what is not in the output yet; return how many failed."""
    limiter = RateLimiter.window(rate, per=1.05)  # in any second
    retry = Retry(
        3,  # attempts
        on=is_failure,
        throttled=lambda error: status(error) == 429,  # uses up no attempt
        hold=limiter,  # no request starts until Retry-After is over
    )
    failed: list[str] = []

    def report(url: str, error: Exception) -> None:
        failed.append(url)
        text = str(error).partition("\n")[0] or type(error).__name__
        print(f"{url}: {text}", file=sys.stderr)

    with progress.bar("checking") as on_progress:
        await TaskExecutor(limit).for_each(
            partial(status_of, client),
            urls,
            journal=Journal(output),  # a line for each URL that is done
            rate=limiter,
            retry=retry,
            timeout=30,  # seconds for each attempt
            errors=report,  # and go on
            on_progress=on_progress,
        )
    return len(failed)


async def main(options: argparse.Namespace) -> int:
    lines = options.urls.read_text(encoding="utf-8").split()
    urls = list(dict.fromkeys(lines))  # each once
    async with httpx.AsyncClient(timeout=None, follow_redirects=True) as client:
        failed = await check(
            urls, options.output, options.limit, options.rate, client
        )
    print(f"{len(urls) - failed} done, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask for many URLs.")
    parser.add_argument("urls", type=Path, help="a file with a URL a line")
    parser.add_argument("--output", type=Path, default=Path("statuses.jsonl"))
    parser.add_argument(
        "--limit", type=int, default=20, help="requests at once"
    )
    parser.add_argument(
        "--rate", type=int, default=10, help="requests in any second"
    )
    parser.add_argument("--trio", action="store_true", help="run on trio")
    options = parser.parse_args()
    for name in ("limit", "rate"):
        if (number := getattr(options, name)) < 1:
            parser.error(f"--{name} {number}: write 1 or more")
    if not options.urls.is_file():
        parser.error(f"{options.urls}: there is no such file")
    logging.basicConfig(level=logging.ERROR)  # no line for each retry
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in scripts too
    signal.signal(signal.SIGTERM, interrupt)  # as Ctrl-C
    code = 130  # as shells report Ctrl-C
    try:
        code = anyio.run(
            main,
            options,
            backend="trio" if options.trio else "asyncio",
            backend_options=TRIO if options.trio else None,
        )
    except* KeyboardInterrupt:  # it may be in a group
        print("interrupted; run it again to go on", file=sys.stderr)
    sys.exit(code)
