"""What the tests have worker processes do; apart, so that these need not import the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any


def add(a: int, b: int) -> tuple[int, int]:
    """Return the sum, and the process in which it was formed."""
    return a + b, os.getpid()


def fail(message: str) -> None:
    """Raise an error."""
    raise LookupError(message)


def leave_a_mark(folder: str, bad: int | None, number: int) -> int:
    """Make a file for this call, another each time, and return its number unless it is bad."""
    name = f"{number} {os.getpid()} {time.monotonic_ns()}"
    with open(os.path.join(folder, name), "x"):  # noqa: PTH118, PTH123 - pathlib takes long to import
        pass
    if number == bad:
        raise LookupError(number)
    return number


def leave(how: BaseException) -> None:
    """Raise what is meant to end a program."""
    raise how


def end(number: int) -> None:
    """Kill the process one is in with a signal."""
    os.kill(os.getpid(), number)
    time.sleep(60)


def end_process(_: object) -> None:
    """End the process one is in, at once."""
    os._exit(3)


def close_everything() -> None:
    """Close all descriptors, as what wants to be a daemon does, and stay."""
    os.closerange(3, 100)
    time.sleep(60)


def start_another(seconds: float) -> None:
    """Start a process that outlives this one's end, and do not wait for it."""
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])  # noqa: S603 - ours
    time.sleep(60)


class Untransferable:
    """What cannot be sent, or cannot be received if it is "unreadable"."""

    def __init__(self, how: str = "never") -> None:
        self.how = how

    def __repr__(self) -> str:
        if self.how == "nameless":
            raise LookupError
        return "<it>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.how == "unreadable":
            return divmod, (1, 0)
        msg = "not me"
        raise TypeError(msg)


class DemandingError(Exception):
    """An error as they are often written: its arguments are not those that are pickled."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


@dataclass(frozen=True)
class FrozenError(Exception):
    """Takes no cause and no note."""

    code: int

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenError, (self.code,)


def fail_frozen() -> None:
    """Raise an error that nobody can change."""
    raise FrozenError(3)


class UntellableError(Exception):
    """Ends who asks for its traceback."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__notes__":
            sys.exit("do not ask")
        return super().__getattribute__(name)


def fail_untellably() -> None:
    """Raise an error whose traceback cannot be shown."""
    raise UntellableError


def fail_demandingly() -> None:
    """Raise an error that cannot be unpickled."""
    raise DemandingError(1, "reason")


def fail_untransferably() -> None:
    """Raise an error that cannot be pickled."""
    raise LookupError(Untransferable())


def hang(port: int) -> None:
    """Tell in which process one is, and hang."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(str(os.getpid()).encode())
    time.sleep(60)
