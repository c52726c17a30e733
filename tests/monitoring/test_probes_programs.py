"""Programs with probes: how they end, fork, run short of files, and what a server makes of them."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.backends import BACKENDS

if TYPE_CHECKING:
    from pathlib import Path

HAS_UVLOOP = sys.platform != "win32" and sys.implementation.name == "cpython"
LOOPS = [*BACKENDS, *(["uvloop"] if HAS_UVLOOP else [])]
posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no forks on Windows")

START = """
import gc
import logging
import os
import socket
import sys
import threading
import time
import urllib.request
import warnings

import anyio

from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor

monitor = ResourceMonitor()
health = HealthRegistry()
probes = Probes(monitor, health, bind="127.0.0.1:0")

def get(path, address=None):
    with urllib.request.urlopen(f"http://{address or probes.address}{path}", timeout=20) as answer:
        return answer.status

def run(main, loop=sys.argv[1]):
    options = {"use_uvloop": True} if loop == "uvloop" else {}
    backend = "trio" if loop == "trio" else "asyncio"
    return anyio.run(main, backend=backend, backend_options=options)

"""


def run(program: str, loop: str, folder: Path, *options: str) -> str:
    """Run a program, which prints no error, and return what it prints."""
    path = folder / "program.py"
    path.write_text(START + textwrap.dedent(program), encoding="utf-8")
    ended = subprocess.run(  # noqa: S603 - this very Python, with the program above
        [sys.executable, "-W", "error", *options, str(path), loop],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=100,
        cwd=folder,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


NEVER_STOPPED = {
    "main returns": """
        async def main():
            await monitor.start()
            await probes.start()
            print(await anyio.to_thread.run_sync(get, "/readyz"))

        run(main)
        """,
    "exit inside": """
        async def main():
            await monitor.start()
            await probes.start()
            print(await anyio.to_thread.run_sync(get, "/readyz"))
            sys.exit()

        run(main)
        """,
    "loop in a daemon thread": """
        up = threading.Event()

        async def main():
            await monitor.start()
            await probes.start()
            up.set()
            await anyio.sleep_forever()

        threading.Thread(target=run, args=(main,), daemon=True).start()
        up.wait()
        print(get("/readyz"))
        """,
    "clients and requests left": """
        async def main():
            await monitor.start()
            await probes.start()
            host, _, port = probes.address.rpartition(":")
            for _ in range(20):
                clients.append(socket.create_connection((host, int(port))))
            health.add("slow", anyio.sleep_forever, timeout=1e9)
            clients[0].sendall(b"GET /readyz HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
            while not probes.statistics().requests:
                await anyio.sleep(0.01)
            print(200)

        clients = []
        run(main)
        for client in clients:
            client.close()
        """,
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("program", NEVER_STOPPED.values(), ids=NEVER_STOPPED)
def test_never_stopped(program: str, loop: str, tmp_path: Path) -> None:
    """A program that never stops its probes ends, and prints nothing of it."""
    assert run(program, loop, tmp_path) == "200\n"


@pytest.mark.skipif(not HAS_UVLOOP, reason="there is no uvloop here")
def test_uvloop_policy(tmp_path: Path) -> None:
    """Where a policy makes every loop one of uvloop's, the probes' own is one too."""
    program = """
        import asyncio
        import uvloop

        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

        async def main():
            async with monitor, probes:
                print(get("/livez"))

        run(main)
        """
    assert run(program, "asyncio", tmp_path) == "200\n"


def test_loop_that_leaves_its_tasks(tmp_path: Path) -> None:
    """A loop that is closed without a word to its tasks keeps no other from starting the probes."""
    program = """
        import asyncio

        async def main():
            await monitor.start()
            await probes.start()
            return probes.address

        loop = asyncio.new_event_loop()
        address = loop.run_until_complete(main())
        loop.close()
        assert probes.running
        try:
            get("/readyz", address)
        except OSError as error:
            print(error.code)
            error.close()

        async def again():
            async with monitor, Probes(monitor, bind=address):
                pass

        async def elsewhere():
            async with monitor, probes:
                print(await anyio.to_thread.run_sync(get, "/readyz"))

        run(elsewhere)
        run(again)
        print("free")
        """
    assert run(program, "asyncio", tmp_path) == "503\n200\nfree\n"


@posix
@pytest.mark.parametrize("loop", LOOPS)
def test_fork(loop: str, tmp_path: Path) -> None:
    """A forked child holds no port and no connection of its parent's, and may have its own."""
    program = """
        warnings.simplefilter("ignore", DeprecationWarning)
        up, stop = threading.Event(), threading.Event()

        async def main():
            async with monitor, probes:
                up.set()
                await anyio.to_thread.run_sync(stop.wait)

        async def child():
            assert not probes.running
            await probes.stop()
            async with monitor, probes:
                print("child", await anyio.to_thread.run_sync(get, "/readyz"), flush=True)

        theirs, ours = os.pipe()
        thread = threading.Thread(target=run, args=(main,))
        thread.start()
        up.wait()
        address = probes.address
        host, _, port = address.rpartition(":")
        client = socket.create_connection((host, int(port)))
        while not probes.statistics().connections:
            time.sleep(0.01)
        pid = os.fork()
        if pid:
            print("parent", get("/livez"), flush=True)
            stop.set()
            thread.join()
            assert client.recv(1) == b""
            client.close()
            try:
                get("/livez", address)
            except OSError:
                print("closed", flush=True)
            os.write(ours, b"x")
            print("status", os.waitpid(pid, 0)[1])
        else:
            client.close()
            os.read(theirs, 1)
            run(child)
        """
    expected = ["parent 200", "closed", "child 200", "status 0"]
    assert run(program, loop, tmp_path).splitlines() == expected


@posix
def test_no_file_left_to_accept(tmp_path: Path) -> None:
    """While there are too many open files probes wait, and then they are answered."""
    program = """
        import resource
        import threading

        logging.disable()  # the monitor can read no figures meanwhile, and says so
        accept, refused = socket.socket.accept, threading.Event()

        def seen(self):
            try:
                return accept(self)
            except OSError as error:
                if not isinstance(error, BlockingIOError):
                    refused.set()
                raise

        socket.socket.accept = seen

        async def main():
            async with monitor, probes:
                host, _, port = probes.address.rpartition(":")
                get("/livez")
                while probes.statistics().connections:
                    time.sleep(0.001)
                client = socket.socket()
                resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
                taken = []
                try:
                    while True:
                        taken.append(os.dup(0))
                except OSError:
                    pass
                client.connect((host, int(port)))
                client.sendall(b"GET /livez HTTP/1.0\\r\\n\\r\\n")
                assert refused.wait(20)
                for each in taken:
                    os.close(each)
                print(client.recv(100)[:15])
                client.close()

        run(main)
        """
    assert run(program, "asyncio", tmp_path) == "b'HTTP/1.1 200 OK'\n"


@posix
@pytest.mark.parametrize("loop", LOOPS)
def test_no_file_left_to_start(loop: str, tmp_path: Path) -> None:
    """A thread that cannot run says so in the log; later it can be started again."""
    program = """
        import resource, traceback

        async def main():
            logging.basicConfig(stream=sys.stdout, format="%(message)s")
            try:
                raise OSError
            except OSError:
                traceback.format_exc()  # from Python 3.15 on, the first imports what it takes
            async with monitor:
                sys.unraisablehook = lambda _: None  # asyncio closes a loop half made, and fails
                before = resource.getrlimit(resource.RLIMIT_NOFILE)
                free = os.dup(0)
                resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
                os.close(free)
                await probes.start()
                address = probes.address
                while probes.running:
                    await anyio.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                await probes.stop()
                async with probes:
                    print(await anyio.to_thread.run_sync(get, "/readyz"))

        run(main)
        """
    lines = run(program, loop, tmp_path).splitlines()
    # The monitor, which reads files, may come first with what it could not do.
    (said,) = [line for line in lines if line.startswith("probes at 127.0.0.1:")]
    assert said.endswith(" are no longer answered")
    assert any("Too many open files" in line for line in lines)
    assert lines[-1] == "200"


HYPERCORN = """
from contextlib import asynccontextmanager
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import Mount

from mtaio.monitoring.asgi import health_app

if sys.argv[1] == "trio":
    from hypercorn.trio import serve
else:
    from hypercorn.asyncio import serve

@asynccontextmanager
async def lifespan(app):
    async with monitor:
        yield

async def main():
    stop = anyio.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    config = Config()
    config.bind = [f"fd://{os.dup(listening.fileno())}", "unix:probes.sock"]
    config.graceful_timeout = 1
    app = Starlette(lifespan=lifespan, routes=[Mount("/health", health_app(monitor, health))])
    async with anyio.create_task_group() as group:
        @group.start_soon
        async def wait_for_end():
            await anyio.to_thread.run_sync(sys.stdin.readline)
            stop.set()
        await serve(app, config, shutdown_trigger=stop.wait)
    listening.close()

run(main)
"""


class UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path, host: str) -> None:
        super().__init__(host, timeout=20)
        self.path = path

    def connect(self) -> None:
        """Connect."""
        if sys.platform != "win32":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(20)
            self.sock.connect(str(self.path))


@posix
@pytest.mark.parametrize("loop", LOOPS)
def test_hypercorn(loop: str, tmp_path: Path) -> None:
    """A real server, on any event loop, serves the application mounted in Starlette."""
    program = tmp_path / "program.py"
    program.write_text(START + HYPERCORN, encoding="utf-8")
    with subprocess.Popen(  # noqa: S603 - this very Python, with the program above
        [sys.executable, str(program), loop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        answers: dict[tuple[str, str], int] = {}
        for method in ("GET", "HEAD", "POST"):
            for path in ("livez", "readyz", "startupz", "metrics", "stats?points=5", "", "x"):
                connection.request(method, f"/health/{path}")
                answer = connection.getresponse()
                answers[method, path] = answer.status
                assert bool(answer.read()) == (method != "HEAD")
        connection.close()
        gone = socket.create_connection(("127.0.0.1", port))
        gone.sendall(b"GET /health/stats HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gone.close()
        for host, status in (("localhost", 200), ("a.example", 403)):
            over_unix = UnixConnection(tmp_path / "probes.sock", host)
            over_unix.request("GET", "/health/stats")
            assert over_unix.getresponse().status == status
            over_unix.close()
        _, errors = process.communicate("\n", timeout=60)
    found = {"livez", "readyz", "startupz", "metrics", "stats?points=5", ""}
    assert answers == {
        (method, path): 404 if path not in found else 405 if method == "POST" else 200
        for method, path in answers
    }
    assert process.returncode == 0
    assert "Traceback" not in errors
