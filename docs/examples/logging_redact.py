"""What the filter masks, and what it cannot know."""

import logging
from collections.abc import Mapping

import anyio

from mtaio.logging import RedactingFilter

redact = RedactingFilter()
plain = logging.Formatter("%(message)s")


def show(message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
    logger = logging.getLogger("shop")
    record = logger.makeRecord("shop", logging.INFO, "", 0, message, args, None, extra=extra)
    redact.filter(record)
    print(plain.format(record), *(f"{key}={record.__dict__[key]}" for key in extra or {}))


async def main() -> None:
    print("masked")
    show("login: user=bob password=hunter2")
    show("GET %s", "https://bob:hunter2@example.org/?page=2&api_key=91ac")
    show("Authorization: Bearer 8f14e45fceea167a5a36dedd4bea2543")
    show("answer: %s", {"name": "bob", "accessToken": "91ac"})
    show("paid", extra={"card": {"holder": "bob", "secret": "123"}})
    print("not masked")
    show("bob's password is hunter2")
    show("login %s %s", "bob", "hunter2")
    show("card 4111 1111 1111 1111")


if __name__ == "__main__":
    anyio.run(main)
