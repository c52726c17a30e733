"""What the filter masks, and what it cannot detect."""

import logging

import anyio

from mtaio.logging import RedactingFilter

redact = RedactingFilter(keys=["pin"])


def show(message: str, *args: object) -> None:
    record = logging.makeLogRecord({"msg": message, "args": args})
    redact.filter(record)
    print(" ", record.getMessage())


async def main() -> None:
    print("masked:")
    show('login: user=bob password="correct horse battery"')
    show("GET %s", "https://bob:hunter2@example.org/?page=2&api_key=91ac")
    show("headers: %s", [("Authorization", "Basic Ym9iOnB3")])
    show("answer: %s", {"accessToken": "91ac", "ids": [{"pin": 1234}]})
    show("env: %s", [{"name": "DB_PASSWORD", "value": "hunter2"}])
    show("pushing with ghp_0123456789abcdefghij")
    print("not masked:")
    show("bob's password is hunter2")
    show("login %s %s", "bob", "hunter2")
    show("password=%s", "correct horse battery")
    show("card 4111 1111 1111 1111")


if __name__ == "__main__":
    anyio.run(main)
