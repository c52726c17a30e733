"""``mtaio tasks``: what it asks, what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mtaio._internal.task_document import document, json_pieces
from mtaio._internal.task_tree import TaskNode, TaskTree, Wait
from mtaio.app import _tasks_command
from mtaio.app._cli import main
from mtaio.app._tasks_command import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def answer() -> bytes:
    """Return what the probes of a service with two tasks answer."""
    tasks = (
        TaskNode(id=1, name="first", where="a.py:1 in f", stack=("a.py:9 in g", "a.py:1 in f")),
        TaskNode(id=2, name="\x1b[2Jsecond", wait=Wait(on="lock", holders=(1,)), state="waiting"),
        TaskNode(id=3, name="third", wait=Wait(on="lock", key=4, holders=(3,))),
    )
    tree = TaskTree(backend="trio", taken_at=0.0, count=3, roots=tasks, cycles=((3,),))
    return b"".join(json_pieces(document(tree, name="shop")))


class Server:
    """Probes that answer what they are told to, and keep what they were asked."""

    def __init__(self) -> None:
        self.status = 200
        self.body = answer()
        self.token: str | None = None
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("authorization")
                server.asked.append((self.path, given))
                refused = server.token is not None and given != f"Bearer {server.token}"
                self.send_response(401 if refused else server.status)
                if refused:
                    self.send_header("www-authenticate", 'Basic realm="mtaio", charset="UTF-8"')
                    self.send_header("www-authenticate", 'Bearer realm="mtaio"')
                self.end_headers()
                self.wfile.write(b"" if refused else server.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return probes, in an environment that knows nothing of them."""
    for name in ("MTAIO_HEALTH_BIND", "MTAIO_HEALTH_TOKEN", "MTAIO_HEALTH_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command, and returns its exit code and what it printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["tasks", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_shows_the_tasks(server: Server, run: Any) -> None:
    """It prints what the probes tell, without colours, and nothing that a terminal acts upon."""
    code, out, err = run(server.address)
    assert (code, err) == (0, "")
    assert out.startswith("shop: 3 tasks on trio, process ")
    assert out.endswith(
        "tasks\n"
        "  first at a.py:1 in f: waiting\n"
        "  \\x1b[2Jsecond: waits for lock, held by first\n"
        "  third: waits for lock, held by third\n"
    )
    assert "\x1b" not in out
    assert server.asked == [("/tasks?format=json", None)]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("--filter", "FIRST"), ["  first at a.py:1 in f: waiting", "  \\x1b[2Jsecond: waits for"]),
        (("--stacks", "--filter", "third"), ["  third: waits for lock, held by third"]),
        (
            ("--stacks", "--filter", "f: waiting"),
            ["  first at a.py:1 in f: waiting", "      a.py:9 in g", "      a.py:1 in f"],
        ),
    ],
)
def test_filter_and_stacks(
    server: Server, run: Any, arguments: tuple[str, ...], lines: list[str]
) -> None:
    """A filter leaves the lines with a text; each task has its stack below it if that is wanted."""
    code, out, _ = run(server.address, *arguments)
    found = out.partition("\ntasks\n")[2].splitlines()
    assert code == 0
    assert len(found) == len(lines)
    assert all(line.startswith(wanted) for line, wanted in zip(found, lines, strict=True))


def test_json(server: Server, run: Any) -> None:
    """What the probes answer is printed as it is."""
    assert run(server.address, "--json") == (0, f"{answer().decode()}\n", "")


def test_colours(server: Server, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a deadlock is red, unless no colours are wanted."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    red = "\x1b[1;31mdeadlock: a task waits for itself\x1b[0m\n"
    assert red in run(server.address)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert red not in run(server.address)[1]


def test_token_and_address_come_from_the_environment(
    server: Server, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables are those of the service."""
    server.token = "secret"  # noqa: S105 - of a test
    assert run(server.address)[:2] == (1, "")
    monkeypatch.setenv("MTAIO_HEALTH_BIND", server.address.replace("127.0.0.1", "0.0.0.0"))  # noqa: S104 - what it stands for is asked
    monkeypatch.setenv("MTAIO_HEALTH_TOKEN", "secret")
    assert run()[0] == 0
    assert server.asked[-1] == ("/tasks?format=json", "Bearer secret")


def test_two_tokens(server: Server, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that contradict each other are refused."""
    monkeypatch.setenv("MTAIO_HEALTH_TOKEN", "secret")
    monkeypatch.setenv("MTAIO_HEALTH_TOKEN_FILE", "/run/secret")
    code, _, err = run(server.address)
    assert code == 2
    assert "MTAIO_HEALTH_TOKEN and MTAIO_HEALTH_TOKEN_FILE are both set" in err
    assert server.asked == []


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("shop.example:9464", "http://shop.example:9464/tasks"),
        ("http://shop.example/", "http://shop.example:80/tasks"),
        ("https://shop.example/health/", "https://shop.example:443/health/tasks"),
        ("https://[::1]:8443/health/tasks", "https://[::1]:8443/health/tasks"),
    ],
)
def test_addresses(target: str, place: str) -> None:
    """An address is that of the probes, with or without the path of the tasks."""
    assert str(Place.parse(target)) == place


@pytest.mark.parametrize(
    "target", ["", "ftp://shop", "http://", "http://shop:x", "http://me:secret@shop", "1:2:3"]
)
@pytest.mark.usefixtures("server")
def test_no_address(run: Any, target: str) -> None:
    """What is neither an address nor a process is refused, with the way out."""
    code, out, err = run("--", target)
    assert (code, out) == (2, "")
    assert "is neither an address nor the number of a process. Pass the address" in err


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "It has no token, so ask it on its own machine, by a loopback address."),
        (404, "of several workers each has its own below that: 127.0.0.1:9464/1."),
        (503, "Other clients are reading its tasks: try again."),
        (500, "answers 500 Internal Server Error: there is [2Jmore."),
    ],
)
def test_refusals(server: Server, run: Any, status: int, words: str) -> None:
    """An answer that is no tree is told with what to do."""
    server.status, server.body = status, b"there is \x1b[2Jmore\n"
    code, out, err = run(server.address)
    assert (code, out) == (1, "")
    assert err.startswith(f"mtaio: http://{server.address}/tasks answers {status} ")
    assert err.endswith(f"{words}\n")


def test_wrong_token(server: Server, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is missing is told from one that is wrong."""
    server.token = "secret"  # noqa: S105 - of a test
    assert "Set MTAIO_HEALTH_TOKEN, or MTAIO_HEALTH_TOKEN_FILE" in run(server.address)[2]
    monkeypatch.setenv("MTAIO_HEALTH_TOKEN", "guess")
    assert "is not the service's" in run(server.address)[2]
    assert "guess" not in run(server.address)[2]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "is not mtaio's"),
        (b"[]", "is not mtaio's"),
        (b"{}", "is not mtaio's"),
        (b'{"format": 2}', "runs another version of mtaio"),
    ],
)
@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_other_answers(
    server: Server, run: Any, body: bytes, words: str, option: tuple[str, ...]
) -> None:
    """What something else answers is not shown."""
    server.body = body
    code, out, err = run(server.address, *option)
    assert (code, out) == (1, "")
    assert words in err


def test_nobody_answers(run: Any, server: Server) -> None:
    """Nobody at the address is an error that names it."""
    server.stop()
    code, out, err = run(server.address)
    assert (code, out) == (1, "")
    assert err.startswith(f"mtaio: no answer from http://{server.address}/tasks: ")
    assert "MTAIO_HEALTH_BIND" in err


def test_process(server: Server, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is asked where it listens; the token goes only to where it is asked for."""
    server.token = "secret"  # noqa: S105 - of a test
    other = Server()
    other.body = b"another page"
    monkeypatch.setenv("MTAIO_HEALTH_TOKEN", "secret")
    monkeypatch.setattr(_tasks_command, "_PATIENCE_AT_A_PORT", 0.2)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))):  # it never answers
        assert run(str(os.getpid()))[0] == 0
        assert [given for _, given in server.asked] == [None, "Bearer secret"]
        server.stop()
        code, _, err = run(str(os.getpid()))
    other.stop()
    assert {given for _, given in other.asked} <= {None}
    assert code == 1
    assert "does not answer probes. If it is an mtaio application, kill -USR1" in err


@pytest.mark.usefixtures("server")
def test_process_without_a_token(run: Any) -> None:
    """Probes without a token answer at once."""
    code, out, _ = run(str(os.getpid()))
    assert (code, out[:5]) == (0, "shop:")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (psutil.NoSuchProcess(1), "does not exist"),
        (psutil.AccessDenied(1), "is another user's. Run the command as that user"),
    ],
    ids=["none", "another user's"],
)
@pytest.mark.usefixtures("server")
def test_process_that_cannot_be_asked(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    """There is none, or it may not be looked into."""

    def refuse(_: int) -> None:
        raise error

    monkeypatch.setattr(psutil, "Process", refuse)
    code, out, err = run("4711")
    assert (code, out) == (2, "")
    assert err.startswith(f"mtaio: process 4711 {words}")


def test_process_in_another_network(
    run: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ports of a container are not those of its host: another service would be asked."""
    networks = iter(["net:[1]", "net:[2]"])
    monkeypatch.setattr(_tasks_command, "_network_of", lambda _: next(networks))
    code, _, err = run(str(os.getpid()))
    assert code == 2
    assert "is in another network, as in a container. Run the command there" in err
    assert server.asked == []


class Watched:
    """Stands for `time.sleep`: what happens between two looks; the last ends it."""

    def __init__(self, *events: Callable[[], object]) -> None:
        self._events = iter(events)

    def __call__(self, seconds: float) -> None:
        """Let the next thing happen."""
        assert seconds == 2
        event = next(self._events, None)
        if event is None:
            raise KeyboardInterrupt
        event()


def test_watch(server: Server, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again and again; while nobody answers, it shows what it saw last, and why."""

    def fail() -> None:
        server.status = 503

    def recover() -> None:
        server.status = 200
        server.body = answer().replace(b"first", b"other")

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "30")
    monkeypatch.setattr(time, "sleep", Watched(fail, recover))
    code, out, err = run(server.address, "--watch")
    assert (code, err) == (130, "mtaio: interrupted\n")
    looks = out.split("\x1b[2J")
    assert [("Service Unavailable" in look, "first" in look) for look in looks[1:]] == [
        (False, True),
        (True, True),
        (False, False),
    ]
    assert len(max(looks[2].splitlines(), key=len)) <= 80


@pytest.mark.parametrize("options", [("--watch",), ("--watch", "--json")])
def test_watch_needs_a_terminal(
    server: Server, run: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """Without a terminal there is nothing to watch, and JSON is for programs."""
    if len(options) > 1:
        monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = run(server.address, *options)
    assert (code, out) == (2, "")
    assert err.startswith("mtaio: --watch ")
    assert server.asked == []


def test_process_where_there_are_no_namespaces(
    run: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on Linux there is one network for all."""

    def none(_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("mtaio.app._tasks_command.Path.readlink", none)
    assert run(str(os.getpid()))[0] == 0
    assert server.asked
