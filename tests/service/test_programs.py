"""The whole programs of the guide, in processes of their own, against servers that watch them."""

from __future__ import annotations

import json
import runpy
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import psutil
import pytest

from tests.programs import ROOT, load
from tests.service.client import accepts
from tests.service.harness import LATE, PATIENCE, Service, free_address, wait_until
from tests.service.site import Asked, Reply, Site

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PROGRAMS = ROOT / "docs" / "examples" / "programs"

worker = load(PROGRAMS / "worker.py", "example_worker")


class Run(Protocol):
    """Run a program with arguments; it is killed when the test is over."""

    def __call__(self, name: str, /, *arguments: str, **options: str) -> Service:
        """Run it with variables of the environment."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a function that runs a program of the guide."""
    with ExitStack() as stack:

        def start(name: str, /, *arguments: str, **options: str) -> Service:
            command = [str(PROGRAMS / name), *arguments]
            return stack.enter_context(Service("", "", tmp_path, options, command))

        yield start


class Main(Protocol):
    """Run a program to its end, in this process."""

    def __call__(self, name: str, /, *arguments: str, **options: str) -> str:
        """Return what it prints."""


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Return a function that runs a program of the guide to its end."""

    def call(name: str, /, *arguments: str, **options: str) -> str:
        with monkeypatch.context() as patch, suppress_exit():
            patch.setattr(sys, "argv", [name, *arguments])
            for variable, value in options.items():
                patch.setenv(variable, value)
            runpy.run_path(str(PROGRAMS / name), run_name="__main__")
        return "".join(capsys.readouterr())

    return call


@contextmanager
def suppress_exit() -> Iterator[None]:
    """Let a program end, with 0."""
    try:
        yield
    except SystemExit as end:
        assert not end.code  # noqa: PT017 - there need not be one


# ---- the crawler ---------------------------------------------------------------------------------


def endless(asked: Asked) -> Reply:
    """Answer with a page that leads to ten others; each takes a moment."""
    if asked.path == "/robots.txt":
        return Reply(404)
    time.sleep(0.01)
    links = "".join(f'<a href="{asked.path}{number}">x</a>' for number in range(10))
    return Reply(body=links, headers={"Content-Type": "text/html"})


def test_crawler_is_interrupted(run: Run, loop: str, tmp_path: Path) -> None:
    """Ctrl-C: whole lines on the disk, 130, no traceback; a host never saw two requests at once."""
    output = tmp_path / "pages.jsonl"
    with Site(endless) as one, Site(endless) as other:
        crawler = run(
            "crawler.py",
            *(f"{one.url}/", f"{other.url}/"),
            *("--contact", "me@example.org", "--delay", "0.05"),
            *("--output", str(output), "--backend", loop),
        )
        for site in (one, other):
            site.wait_asked(5)
        assert output.read_text(encoding="utf-8").endswith("\n")  # before it has ended
        assert crawler.stop(signal.SIGINT) == 130
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    asked = [each for site in (one, other) for each in site.asked if each.path != "/robots.txt"]
    assert len(asked) - 2 <= len(lines) <= len(asked)  # but those in flight
    assert {line["status"] for line in lines} == {200}
    assert crawler.err.lines == [f"{len(lines)} pages visited"]
    assert crawler.seconds < LATE
    for site in (one, other):
        assert site.peak == 1
        assert site.asked[0].path == "/robots.txt"
        assert "me@example.org" in site.asked[0].headers["User-Agent"]
        assert [each.path for each in site.asked].count("/robots.txt") == 1


def test_crawler_ends_by_itself(tmp_path: Path, main: Main) -> None:
    """When there is nothing more to visit it ends with 0; another run adds its lines."""
    output = tmp_path / "pages.jsonl"
    with Site(endless) as site:
        arguments = (f"{site.url}/", "--contact", "me", "--pages", "5", "--delay", "0.1")
        for _ in range(2):
            began = time.monotonic()
            assert main("crawler.py", *arguments, "--output", str(output)) == "5 pages visited\n"
            assert time.monotonic() - began > 5 * 0.1  # robots.txt and five pages
    assert len(output.read_text(encoding="utf-8").splitlines()) == 10


# ---- the command-line tool -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("backend", [(), ("--trio",)], ids=["asyncio", "trio"])
def test_links_are_interrupted_and_go_on(
    run: Run, backend: tuple[str, ...], number: int, tmp_path: Path
) -> None:
    """Ctrl-C or SIGTERM: 130, no traceback; the next run asks for the rest: 1, then 0."""
    urls, output = tmp_path / "urls.txt", tmp_path / "statuses.jsonl"
    free = threading.Event()

    def answer(asked: Asked) -> Reply:
        if int(asked.path[1:]) >= 10:
            free.wait(PATIENCE)
        return Reply(404 if asked.path == "/30" and not repaired else 200)

    def start() -> Service:
        options = ("--output", str(output), "--limit", "5", "--rate", "1000")
        return run("links.py", str(urls), *options, *backend)

    def done() -> list[str]:
        return [json.loads(line)["key"] for line in output.read_text("utf-8").splitlines()]

    repaired = False
    with Site(answer) as site:
        urls.write_text("".join(f"{site.url}/{number}\n" for number in range(40)), "utf-8")
        first = start()
        site.wait(lambda: sum(int(each.path[1:]) >= 10 for each in site.asked) == 5)
        assert first.stop(number) == 130
        assert first.err.lines == ["interrupted; run it again to go on"]
        assert sorted(done()) == sorted(f"{site.url}/{number}" for number in range(10))
        free.set()
        site.wait(lambda: site.in_flight == 0)
        site.asked.clear()

        second = start()
        assert second.wait() == 1
        assert second.err.lines[-1] == "39 done, 1 failed"
        assert second.err.lines[0].startswith(f"{site.url}/30: Client error '404 Not Found'")
        assert sorted(int(each.path[1:]) for each in site.asked) == list(range(10, 40))
        repaired = True
        third = start()
        assert third.wait() == 0
        assert third.err.lines == ["40 done, 0 failed"]
        assert len(done()) == len(set(done())) == 40


# ---- the gateway ---------------------------------------------------------------------------------


class Quotes:
    """An upstream that can be held."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.broken = False

    def answer(self, asked: Asked) -> Reply:
        """Answer with what was asked for."""
        if asked.path.startswith("/quotes/held"):
            self.free.wait(PATIENCE)
        if self.broken:
            return Reply(500)
        if asked.path.startswith("/quotes/none"):
            return Reply(404, "no such symbol")
        return Reply(body=asked.path, headers={"Content-Type": "text/plain"})


class Asking:
    """Requests that are made at the same time, each in a thread and with a key of its own."""

    def __init__(self, requests: Iterable[tuple[str, str]]) -> None:
        self.answers: list[httpx.Response] = []
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._ask, args=each) for each in requests]
        for thread in self._threads:
            thread.start()

    def _ask(self, url: str, key: str) -> None:
        answer = ask(url, key)
        with self._changed:
            self.answers.append(answer)
            self._changed.notify_all()

    def wait(self, number: int) -> None:
        """Wait for so many answers."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.answers) >= number, PATIENCE)

    def statuses(self) -> Counter[int]:
        """Wait for all answers, and return how many there are of each kind."""
        for thread in self._threads:
            thread.join(PATIENCE)
        return Counter(answer.status_code for answer in self.answers)


client = httpx.Client(timeout=PATIENCE, trust_env=False, limits=httpx.Limits())


def ask(url: str, key: str) -> httpx.Response:
    """Ask as the owner of a key."""
    return client.get(url, headers={"X-API-Key": key})


def test_gateway(run: Run, loop: str) -> None:
    """429, 503, 504 and 502, with Retry-After; the upstream is asked once for all who ask."""
    quotes = Quotes()
    keys = [f"key-{number}" for number in range(40)]
    with Site(quotes.answer) as upstream:
        gateway = run(
            "gateway.py",
            *("--backend", loop),
            GATEWAY_UPSTREAM=upstream.url,
            GATEWAY_BIND=(address := free_address()),
            GATEWAY_KEYS=",".join(keys),
            MTAIO_DEFAULT_TIMEOUT="4",
        ).wait_readiness(200)
        url = f"http://{address}/quotes"

        answer = ask(f"{url}/a%3Fb%20c", keys[0])
        assert (answer.status_code, answer.text) == (200, "/quotes/a%3Fb%20c")
        assert ask(f"{url}/none", keys[0]).status_code == 404
        assert ask(f"{url}/a", "stolen").status_code == 401

        # A client may ask ten times at once, and then five times a second; others do not notice.
        began = time.monotonic()
        asking = Asking([(f"{url}/a", keys[1])] * 40)
        statuses = asking.statuses()
        assert set(statuses) == {200, 429}
        assert statuses[200] <= 10 + 5 * (time.monotonic() - began) + 1
        waits = {each.headers.get("Retry-After") for each in asking.answers}
        assert waits == {None, "1"}
        assert ask(f"{url}/a", keys[2]).status_code == 200
        assert [each.path for each in upstream.asked].count("/quotes/a") == 1

        # The upstream has eight requests at once, sixteen wait, and six are told to come again.
        quotes.free.clear()
        asking = Asking((f"{url}/held-{number}", keys[number]) for number in range(10, 40))
        asking.wait(6)
        assert {each.headers["Retry-After"] for each in asking.answers} == {"1"}
        upstream.wait(lambda: upstream.in_flight == 8)
        quotes.free.set()
        assert asking.statuses() == {200: 24, 503: 6}
        assert upstream.peak == 8

        # It has four seconds. If it fails, what was kept is served.
        quotes.free.clear()
        answer = ask(f"{url}/held", keys[3])
        assert (answer.status_code, answer.headers["Retry-After"]) == (504, "5")
        quotes.free.set()
        quotes.broken = True
        assert ask(f"{url}/b", keys[4]).status_code == 502
        assert ask(f"{url}/none", keys[4]).status_code == 404
        assert [each.path for each in upstream.asked].count("/quotes/none") == 2
        assert gateway.metric('mtaio_keyed_rate_limiter_keys{name="clients"') >= 33
        assert gateway.stop() == 0
    assert "CRITICAL" not in gateway.err.text


# ---- the worker ----------------------------------------------------------------------------------


class Hooks:
    """Receives webhooks."""

    def __init__(self) -> None:
        self.free, self.stuck = threading.Event(), threading.Event()
        self.done: list[str] = []

    def answer(self, asked: Asked) -> Reply:
        """Accept a job; "held" and "stuck" ones wait, and "poison" is never accepted."""
        if asked.path == "/held":
            self.free.wait(PATIENCE)
        if asked.path == "/stuck":
            self.stuck.wait(PATIENCE)
        if asked.path == "/poison":
            return Reply(500)
        self.done.append(asked.headers["Idempotency-Key"])
        return Reply(204)


def select(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Look into the worker's table."""
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as db:
        return db.execute(sql).fetchall()


def put(path: Path, url: str, number: int = 1) -> None:
    """Put so many jobs into the queue."""
    with closing(worker.Queue(str(path))) as queue:
        for _ in range(number):
            queue.put(url, "{}")


QUICK = {"WORKER_POLL": "0.05", "WORKER_WAIT": "0.05", "WORKER_ATTEMPTS": "3"}


def test_worker(run: Run, main: Main, loop: str, tmp_path: Path) -> None:
    """Each job is done, four at once; poison is set aside; at the end what was begun is done."""
    path, hooks = tmp_path / "queue.db", Hooks()
    options = {**QUICK, "WORKER_QUEUE": str(path)}
    with Site(hooks.answer) as site:
        put(path, f"{site.url}/poison")
        put(path, f"{site.url}/hook", 30)
        service = run(
            *("worker.py", "run", "--backend", loop),
            **options,
            MTAIO_MAX_WORKERS="4",
            MTAIO_SHUTDOWN_TIMEOUT="4",
        )
        site.wait(lambda: len(hooks.done) >= 30 and len(site.asked) >= 33)
        wait_until(lambda: len(select(path, "SELECT id FROM jobs")) == 1)
        assert sorted(hooks.done, key=int) == [str(number) for number in range(2, 32)]
        wait_until(lambda: main("worker.py", "dead", **options).startswith("1 http"))
        assert select(path, "SELECT attempts FROM jobs") == [(3,)]

        # Of four jobs in flight one takes longer than there is time, and two have not begun.
        put(path, f"{site.url}/stuck")
        put(path, f"{site.url}/held", 5)
        site.wait(lambda: site.in_flight == 4)
        service.send(signal.SIGTERM)
        service.wait_readiness(503)
        hooks.free.set()
        assert service.wait() == 0
        assert service.seconds < 4 + LATE
        hooks.stuck.set()
    assert len(site.asked) == 30 + 3 + 4
    assert site.peak == 4
    assert len(set(hooks.done)) >= 30 + 3
    left = select(path, "SELECT due, attempts FROM jobs WHERE url NOT LIKE '%/poison'")
    assert left == [(0, 0)] * 3


def test_worker_that_is_killed(run: Run, main: Main, tmp_path: Path) -> None:
    """A job whose worker was killed is done by another when the lease is over."""
    path, hooks = tmp_path / "queue.db", Hooks()
    options = {**QUICK, "WORKER_QUEUE": str(path), "WORKER_LEASE": "2"}
    with Site(hooks.answer) as site:
        main("worker.py", "put", f"{site.url}/held", "{}", **options)
        first = run("worker.py", "run", **options)
        site.wait(lambda: site.in_flight == 1)
        psutil.Process(first.pid).kill()
        hooks.free.set()
        second = run("worker.py", "run", **options)
        site.wait_asked(2)
        wait_until(lambda: select(path, "SELECT id FROM jobs") == [])
        assert second.stop() == 0
    assert site.asked[1].at - site.asked[0].at > 1
    assert {each.headers["Idempotency-Key"] for each in site.asked} == {"1"}


# ---- the relay -----------------------------------------------------------------------------------


def test_relay(run: Run) -> None:
    """Lines go on in batches; at the end what was taken is sent, and the exit code is 0."""
    pytest.importorskip("trio")
    held = threading.Event()

    def answer(_: Asked) -> Reply:
        held.wait(PATIENCE)
        return Reply(204)

    with Site(answer) as site:
        address = free_address()
        relay = run("relay.py", site.url, "--listen", address)
        host, _, port = address.partition(":")
        wait_until(lambda: accepts(address))
        with (
            socket.create_connection((host, int(port)), PATIENCE) as idle,
            socket.create_connection((host, int(port)), PATIENCE) as busy,
        ):
            busy.sendall(b"".join(b"line %d\n" % number for number in range(150)))
            busy.shutdown(socket.SHUT_WR)
            assert busy.recv(1) == b""  # it has taken all lines
            assert site.in_flight <= 1
            relay.send(signal.SIGTERM)
            assert idle.recv(1) == b""
        wait_until(lambda: not accepts(address))
        held.set()
        assert relay.wait() == 0
    lines = [line for each in site.asked for line in each.body.split("\n")]
    assert lines == [f"line {number}" for number in range(150)]
    assert [each.body.count("\n") + 1 for each in site.asked] == [100, 50]
    assert "Traceback" not in relay.err.text
