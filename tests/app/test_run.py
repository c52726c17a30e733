"""``mtaio run``: what it finds, runs and refuses."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from mtaio.app._cli import main
from tests.app.certificates import LOCALHOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., int]

SHOP = """
import signal

from anyio.lowlevel import current_token

from mtaio.app import Application
from starlette.applications import Starlette


def library():
    loop = type(current_token().native_token).__module__
    return "trio" if loop.startswith("trio") else "asyncio"


app = Application(probes=False)
broken = Application(probes=False)
number = 7


@app.service
async def sell():
    print("selling on", library())
    app.stop_nowait("all is sold")


@broken.service
async def burn():
    raise OSError("fire")


def make_app():
    return app


async def asgi(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    signal.raise_signal(signal.SIGTERM)
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
    print("stopped on", library())


service = Application()


@service.service
async def end():
    print(len(service.addresses), "server on", library())
    service.stop_nowait()


web = Starlette(lifespan=service.lifespan)
"""


@pytest.fixture
def run(backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return a function that runs ``mtaio run`` on the backend, where ``shop.py`` is."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "burnt.py").write_text("import shop\n\nraise OSError('fire')\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MTAIO_HEALTH_BIND", "127.0.0.1:0")

    def command(*arguments: str) -> int:
        return main(["run", "--backend", backend, *arguments])

    yield command
    for name in ("shop", "burnt"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("target", ["shop:app", "shop:make_app()"])
def test_application_is_run(
    run: Run, backend: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An application of the current folder is run on the backend, to its end."""
    assert run(target) == 0
    assert capsys.readouterr().out == f"selling on {backend}\n"


def test_asgi_application_is_run(
    run: Run, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ASGI application is started and stopped by an application around it."""
    assert run("shop:asgi", "--bind", "127.0.0.1:0") == 0
    assert capsys.readouterr().out == f"stopped on {backend}\n"


def test_application_behind_the_lifespan_is_run(
    run: Run, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An application that is the lifespan of what is to be served is run, and serves it."""
    assert run("shop:web", "--bind", "127.0.0.1:0") == 0
    assert capsys.readouterr().out == f"1 server on {backend}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--certfile", "no.pem"], "cannot read the certificate 'no.pem': No such file or dir"),
        (["--keyfile", "no.pem"], "keyfile='no.pem' is given without a certificate. Pass certfil"),
        (["--trusted-proxies", "all"], "trusted_proxies='all' is not a list of addresses and netw"),
        (["--max-in-flight", "0"], "max_in_flight=0 is less than 1. Pass a whole number, 1 or"),
    ],
)
def test_option_that_makes_no_sense(
    run: Run, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    """It is named, with the exit code of a usage error, before anything has started."""
    with pytest.raises(SystemExit) as raised:
        run("shop:asgi", *options)
    assert raised.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mtaio: {message}")


def test_certificate_of_the_settings(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a variable names is named as well; an option comes before it."""
    monkeypatch.setenv("MTAIO_CERTFILE", "no.pem")
    with pytest.raises(SystemExit) as raised:
        run("shop:asgi")
    assert raised.value.code == 2
    assert "cannot read the certificate 'no.pem'" in capsys.readouterr().err
    assert run("shop:asgi", "--bind", "127.0.0.1:0", "--certfile", str(LOCALHOST)) == 0


def test_exit_code_is_the_applications(run: Run) -> None:
    """What the application ends with, the command ends with."""
    with pytest.raises(SystemExit) as raised:
        run("shop:broken")
    assert raised.value.code == 1


def test_error_of_the_program_has_its_traceback(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module that fails while it is imported shows where, and nothing of ours."""
    assert run("burnt:app") == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"Traceback \(most recent call last\):\n"
        r'  File ".*burnt\.py", line 3, in <module>\n'
        r"    raise OSError\('fire'\)\n"
        r"OSError: fire\n"
        r"mtaio: 'burnt:app' cannot be loaded: see above\.\n",
        error,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none:app"], r"^mtaio: there is no module 'none'"),
        (["shop:shut"], r"^mtaio: .*no 'shut' .*: shop:app, shop:broken, shop:service\.$"),
        (
            ["shop:make_app"],
            r"^mtaio: 'shop:make_app' is .* write shop:make_app\(\)\. In 'shop' there is: ",
        ),
        (
            ["shop:number"],
            r"^mtaio: 'shop:number' is an int, neither an Application nor an ASGI application\. ",
        ),
        ([], r"^mtaio: .*TARGET.*\n.*mtaio run --help"),
    ],
)
def test_what_cannot_be_run_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Usage errors have exit code 2 and one message that names the way out, without a traceback."""
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(message, printed.err.rstrip()), printed.err


def test_addresses_are_as_many_as_servers(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """An address for a server that is not there is refused."""
    with pytest.raises(SystemExit) as raised:
        run("shop:app", "--bind", "127.0.0.1:0")
    assert raised.value.code == 2
    assert re.search(r"^mtaio: bind=.* 1 addresses.* 0 servers", capsys.readouterr().err)


def test_address_that_is_none(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in the address is one in the command, and not a start-up that has failed."""
    with pytest.raises(SystemExit) as raised:
        run("shop:asgi", "--bind", "localhost")
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("mtaio: bind='localhost' does not end in a port")
