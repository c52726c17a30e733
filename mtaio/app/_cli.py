"""
The command line of mtaio: its commands, and their exit codes.

Promise: `main` returns the exit code, or raises it in a `SystemExit`, as an application does. A
mistake in the command gives a message without a traceback, and the exit code 2.
Cost: what a command needs is imported only when it is called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Annotated, Final, Literal, TypeAlias

from cyclopts import App, CycloptsError, Parameter

from mtaio import __version__
from mtaio.app._usage import Backend, CommandError, UsageError, require_backend

__all__ = ["app", "main"]

INTERRUPTED: Final = 130

_arguments: Final[ContextVar[Sequence[str]]] = ContextVar("_arguments", default=())
"""What the command line was, which workers get too."""

app: Final[App] = App(
    name="mtaio",
    help="Run, check and inspect applications of mtaio.",
    version=f"mtaio {__version__}",
    version_format="plaintext",  # the default loads a parser of Markdown, for one line
    suppress_keyboard_interrupt=False,
)
app.command("mtaio.app._demo_command:demo", name="demo")
app.command("mtaio.app._tasks_command:tasks", name="tasks")

_Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]


@app.command
def check(target: str | None = None, /, *, json: _Flag = False, strict: _Flag = False) -> int:
    """
    Check whether an application is ready for production.

    This goes through the checklist of the deployment guide: settings, machine, log, limits,
    secrets. TARGET is MODULE:NAME, or MODULE:FUNCTION() for a function that returns the
    application. Without TARGET, only the settings and the machine are checked. The application is
    imported but not started. Run this where the service will run, as the same user.

    Exit status: 0 if nothing fails, 1 if something does, 2 for a usage error.

    Args:
        target: The application, as in shop:app or shop:make_app().
        json: Print JSON instead of text.
        strict: Fail on warnings too.
    """
    from mtaio.app._check_command import check_command  # noqa: PLC0415 - see the module's cost

    return check_command(target, json=json, strict=strict)


@app.command
def run(
    target: str,
    /,
    *,
    backend: Backend = "asyncio",
    bind: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    certfile: str | None = None,
    keyfile: str | None = None,
    trusted_proxies: str | None = None,
    max_in_flight: int | None = None,
    body_timeout: float | None = None,
    access_log: bool | None = None,
    workers: int | None = None,
) -> int:
    """
    Run an application until a signal ends it.

    TARGET is MODULE:NAME, or MODULE:FUNCTION() for a function that returns the application. It can
    be an Application of mtaio, or an ASGI application, which is then served. The module is searched
    for in the current folder first.

    Exit status: 0 if the application stopped as requested, 1 if it failed, 2 for a usage error or
    invalid settings, 3 if it could not start, 70 if it did not stop in time, 75 if a job is not
    complete, and 128 plus the signal's number after a second signal. If the program calls
    sys.exit(), its code is the exit status.

    Args:
        target: The application, as in shop:app or shop:make_app().
        backend: The event loop to run on.
        bind: HOST:PORT to listen at, instead of the addresses in the program. Give it once for each
            server, in the same order.
        certfile: The TLS certificate with its chain, in PEM.
        keyfile: The private key in PEM, unless the certificate's file contains it.
        trusted_proxies: Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted: IP
            addresses, networks and "unix", separated by commas.
        max_in_flight: Maximum number of requests that each server handles at once. Others get 503.
        body_timeout: Seconds that a client may take to send the next piece of a request's body.
        access_log: Whether each request gets an id and a line in the log.
        workers: The number of worker processes under a supervisor, all at the same addresses. With
            1, there is only this process.

    Raises:
        SystemExit: With the exit code, unless that is 0.
    """
    from mtaio.app._load import load_application, own_traceback  # noqa: PLC0415 - likewise
    from mtaio.app._worker import Worker  # noqa: PLC0415 - likewise

    require_backend(backend)
    Worker.current = Worker.begin()
    if Worker.current is None and (workers is not None or "MTAIO_WORKERS" in os.environ):
        from mtaio.app._workers import supervise, workers_wanted  # noqa: PLC0415 - likewise

        wanted = workers_wanted(workers)
        if wanted > 1:
            return supervise(_arguments.get(), wanted)
    try:
        application = load_application(target)
    except UsageError:
        raise
    except Exception as error:
        print(own_traceback(error), file=sys.stderr)  # noqa: T201 - the program's own error
        msg = f"{target!r} cannot be loaded: see above."
        raise UsageError(msg) from error
    application.run(
        backend,
        bind=bind,
        certfile=certfile,
        keyfile=keyfile,
        trusted_proxies=trusted_proxies,
        max_in_flight=max_in_flight,
        body_timeout=body_timeout,
        access_log=access_log,
    )
    return 0


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """
    Print a shell script that completes mtaio's commands and options.

    Write it to the place where the shell looks for such scripts: for bash to
    ~/.local/share/bash-completion/completions/mtaio, for zsh to _cyclopts_mtaio in a folder of
    $fpath, for fish to ~/.config/fish/completions/mtaio.fish.

    Args:
        shell: The shell to write it for.
    """
    print(app.generate_completion(shell=shell))  # noqa: T201 - this is what the command is asked for


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: Without the program's name; ``sys.argv``'s if None.

    Returns:
        The exit code.

    Raises:
        SystemExit: The application that was run ended with a code other than 0.
    """
    code = INTERRUPTED
    try:
        code = _main(arguments)
    except* KeyboardInterrupt:
        _say("interrupted")
    return code


def _main(arguments: Sequence[str] | None) -> int:
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    _arguments.set(tokens)
    if tokens[:1] in ([], ["--help"], ["-h"]):
        app.resolved_commands()  # whose first lines are in the list of commands
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        command = " ".join(["mtaio", *(error.command_chain or ())])
        _say(f"{error}\nTry: {command} --help")
        return UsageError.exit_code
    except CommandError as error:
        _say(str(error))
        return error.exit_code
    return result or 0


def _say(message: str) -> None:
    print(f"mtaio: {message}", file=sys.stderr)  # noqa: T201 - where a command complains
