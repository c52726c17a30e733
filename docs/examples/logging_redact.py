"""What the filter masks, and what it cannot detect."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from mtaio.logging import RedactingFilter

redact = RedactingFilter(keys=["pin"])
plain = logging.Formatter("%(message)s")


@dataclass
class Account:
    """An account, whose repr shows the password."""

    name: str
    password: str


def show(
    message: str, *args: object, extra: Mapping[str, object] | None = None
) -> None:
    logger = logging.getLogger("shop")
    record = logger.makeRecord(
        "shop", logging.INFO, "", 0, message, args, None, extra=extra
    )
    redact.filter(record)
    shown = [f"{key}={record.__dict__[key]}" for key in extra or {}]
    print(" ", plain.format(record), *shown)


async def main() -> None:
    print("masked:")
    show('login: user=bob password="correct horse battery"')
    show("GET %s", "https://bob:hunter2@example.org/?page=2&api_key=91ac")
    show(
        "headers: %s", [("Accept", "*/*"), ("Authorization", "Basic Ym9iOnB3")]
    )
    show(
        "answer: %s",
        {"name": "bob", "accessToken": "91ac", "ids": [{"pin": 1234}]},
    )
    show("env: %s", [{"name": "DB_PASSWORD", "value": "hunter2"}])
    show("new account", extra={"account": Account("bob", "hunter2")})
    show("pushing with ghp_0123456789abcdefghij")
    print("not masked:")
    show("bob's password is hunter2")
    show("login %s %s", "bob", "hunter2")
    show("password=%s", "correct horse battery")
    show("card 4111 1111 1111 1111")


if __name__ == "__main__":
    anyio.run(main)
