"""
The program of a worker process: it makes one call after another, and says how each ended.

Promise: what the functions print goes where the program's own output goes, and cannot get among
the replies; an error of a call, SystemExit too, is a reply and not the end of the process. When
the program goes away, so does the worker.

It is run as a file, by the path of the program that starts it, and needs the standard library only.
"""

from __future__ import annotations

import pickle
import reprlib
import signal
import socket
import struct
import sys
import types
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

REQUEST = struct.Struct("!Q")
"""What precedes a request: its length."""
REPLY = struct.Struct("!BIQ")
"""What precedes a reply: its kind, and the lengths of its text and its body."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60
_SHORT.maxother = 100

RETURNED = 0
"""The call returned; the reply's body is the pickled result."""
RAISED = 1
"""The call raised; the text describes the error, which is the body: see `_dump_error`."""
ENDED = 2
"""The call raised what is meant to end a program (``SystemExit``); as `RAISED`."""
UNREADABLE = 3
"""The call could not be unpickled; the body is the error."""
UNSENDABLE = 4
"""What came of the call cannot be pickled; the text describes it, the body is the error."""


def read_request(stream: BinaryIO) -> bytes:
    """
    Wait for a request.

    Raises:
        EOFError: There are no more.
    """
    (length,) = REQUEST.unpack(_read(stream, REQUEST.size))
    return _read(stream, length)


def write_reply(stream: BinaryIO, kind: int, text: str, body: bytes) -> None:
    """Send a reply."""
    described = text.encode(errors="backslashreplace")
    stream.write(REPLY.pack(kind, len(described), len(body)))
    stream.write(described)
    stream.write(body)
    stream.flush()


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def describe(value: object) -> str:
    """Return a short text that names ``value`` for a message, whatever its ``__repr__`` does."""
    return _SHORT.repr(value)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Load the program's main module, then make the calls that are asked for."""
    with suppress(EOFError, OSError):  # the program has gone
        reply = prepare(read_request(requests))
        while True:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # it may be closed, or None
                    stream.flush()
            write_reply(replies, *reply)
            reply = answer(read_request(requests))


def prepare(request: bytes) -> tuple[int, str, bytes]:
    """Load the main module that the first request names, and return the reply."""
    try:
        load_main(*pickle.loads(request))  # noqa: S301 - from the program that started this one
    except BaseException as error:  # noqa: BLE001 - a user's module may raise anything
        return RAISED, describe(error), _dump_error(error)
    return RETURNED, "", b""


def answer(request: bytes) -> tuple[int, str, bytes]:
    """Make one call, and return the reply."""
    try:
        call = pickle.loads(request)  # noqa: S301 - from the program that started this one
    except BaseException as error:  # noqa: BLE001 - the module that it imports may raise anything
        return UNREADABLE, "", _dump_error(error)
    try:
        result = call()
    except Exception as error:  # noqa: BLE001 - sent to the caller
        return RAISED, describe(error), _dump_error(error)
    except BaseException as error:  # noqa: BLE001 - likewise
        return ENDED, describe(error), _dump_error(error)
    try:
        return RETURNED, "", pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - a method of the user's may raise anything
        return UNSENDABLE, describe(result), _dump_error(error)


def _dump_error(error: BaseException) -> bytes:
    """
    Return the error pickled, and its traceback as text, both pickled together.

    In place of an error that cannot be pickled there is another that says so. They are pickled one
    by one, so that there is a traceback even if the other side cannot load the error.
    """
    try:
        dumped = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
    except BaseException as reason:  # noqa: BLE001 - as above
        stand_in = pickle.PicklingError(f"{describe(error)} cannot be pickled: {describe(reason)}")
        dumped = pickle.dumps(stand_in, pickle.HIGHEST_PROTOCOL)
    return pickle.dumps((dumped, _traceback_of(error)), pickle.HIGHEST_PROTOCOL)


def _traceback_of(error: BaseException) -> str:
    """Return the traceback of an error that was caught here, without the frame that caught it."""
    import traceback  # noqa: PLC0415 - most calls do not fail

    caught = error.__traceback__
    try:
        return "".join(traceback.format_exception(error.with_traceback(caught and caught.tb_next)))
    except BaseException as reason:  # noqa: BLE001 - a user's error may raise anything, as above
        return f"(the traceback cannot be shown: {describe(reason)})"


def load_main(path: list[str], argv: list[str], module: str | None, file: str | None) -> None:
    """
    Load the program's main module as ``__mp_main__``, which both sides take for ``__main__``.

    As in multiprocessing. What stands under ``if __name__ == "__main__":`` is not run.
    """
    sys.path[:] = path
    sys.argv[:] = argv
    import runpy  # noqa: PLC0415 - found by the path just set

    main = types.ModuleType("__mp_main__")
    if module is not None:
        main.__dict__.update(runpy.run_module(module, run_name="__mp_main__", alter_sys=True))
    elif file is not None:
        main.__dict__.update(runpy.run_path(file, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


def run() -> None:
    """Serve the program at the other end of the socket whose number is the first argument."""
    # The program decides what Ctrl-C means. A handler, unlike SIG_IGN, is not inherited by what the
    # functions start.
    signal.signal(signal.SIGINT, _ignore)
    with (
        socket.socket(fileno=int(sys.argv[1])) as connection,
        connection.makefile("rb") as requests,
        connection.makefile("wb") as replies,
    ):
        connection.set_inheritable(False)
        serve(requests, replies)


def _ignore(*_: object) -> None:
    pass


if __name__ == "__main__":
    run()
