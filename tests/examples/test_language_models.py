"""The programs of the guide on language models, unchanged, against a server that breaks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from mtaio.testing import Network, assert_quiescent, run, settle
from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")

HOME = ROOT / "docs" / "examples" / "llm"
ANSWER = "It is what it is , and not what it was said to be . "


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the server, where the programs find it."""
    for name, value in {
        "MODEL_URL": "http://model",
        "GATEWAY_BIND": "0.0.0.0:80",
        "MTAIO_LOG_LEVEL": "CRITICAL",
    }.items():
        monkeypatch.setenv(name, value)
    module = load(HOME / "language_model.py", "example_language_model")
    monkeypatch.setitem(sys.modules, "language_model", module)
    return module


def prompts(number: int) -> list[str]:
    """Return so many, no two of them alike, and of different lengths."""
    return [f"Prompt {each}: {'a few more words ' * (each % 30)}" for each in range(number)]


def batch(server: Any, number: int, backend: str) -> float:
    """Let the program ask for so many; return after how many seconds it had all answers."""
    program = load(HOME / "batch.py", "example_batch")

    async def main() -> float:
        async with Network(latency=0.02) as net:
            net.host("model").start(server.serve)
            await settle()
            began = anyio.current_time()
            answers = await program.ask_all("http://model", prompts(number))
            assert len(answers) == number
            assert set(server.answered) == set(prompts(number))
            return anyio.current_time() - began

    return run(main, backend=backend)


def test_batch_is_complete(model: ModuleType, backend: str) -> None:
    """Half of what the server says is allowed, and it breaks: nothing is lost, little refused."""
    server = model.Model(allows=0.5, breaks=20)
    took = batch(server, 200, backend)
    assert server.refused <= 10
    assert took <= 1.1 * (server.asked - 60)  # 60 at once, and then one a second


def test_batch_with_a_server_that_says_nothing(model: ModuleType, backend: str) -> None:
    """Without headers a refusal, with its Retry-After, is all that there is to go by."""
    server = model.Model(allows=0.5)
    server.headers = dict
    took = batch(server, 120, backend)
    assert len(server.answered) == 120  # none was made twice
    assert took <= 1.3 * (120 - 60)


class Clients:
    """Those who ask the gateway."""

    def __init__(self, net: Network) -> None:
        self.client = httpx.AsyncClient(timeout=60)
        self.net = net

    async def ask(self, prompt: str) -> tuple[int, str, float]:
        """Ask, and return the status, the answer, and when the first token came."""
        began, first, text = anyio.current_time(), 0.0, ""
        url = "http://gateway/answers"
        async with self.client.stream("POST", url, json={"prompt": prompt}) as response:
            try:
                async for part in response.aiter_text():
                    first = first or round(anyio.current_time() - began, 2)
                    text += part
            except httpx.RemoteProtocolError:
                text += "(broken off)"
        return response.status_code, text, first


def serve(server: Any, backend: str, test: Callable[[Clients], Awaitable[None]]) -> None:
    """Run a test with the gateway and the model up, each on a host; then stop the gateway."""
    program = load(HOME / "gateway.py", "example_gateway")

    async def live() -> None:
        async with program.app:
            await program.app.wait_closed()

    async def main() -> None:
        async with Network(latency=0.02) as net:
            net.host("model").start(server.serve)
            net.host("gateway").start(live)
            await settle()
            clients = Clients(net)
            async with clients.client:
                await test(clients)
            program.app.stop_nowait("the test is over")
            with net.host("gateway"):
                await program.app.wait_closed()
            assert server.open == 0
            assert [each for each in net.open if each.host == "gateway"] == []
        assert_quiescent(net)

    run(main, backend=backend)


def test_gateway_passes_tokens_on_as_they_come(model: ModuleType, backend: str) -> None:
    """The first token is there before the last one is made."""

    async def test(clients: Clients) -> None:
        status, text, first = await clients.ask("What is it?")
        assert (status, text) == (200, ANSWER)
        assert first < 0.75

    serve(model.Model(), backend, test)


def test_gateway_asks_again_until_the_first_token(model: ModuleType, backend: str) -> None:
    """A 503 and a hang are tried again; a stream that breaks off or stands still is not whole."""

    async def test(clients: Clients) -> None:
        ends = [(await clients.ask("What is it?"))[1] for _ in range(8)]
        assert ends.count(ANSWER) == 6
        assert sum(end.endswith("(broken off)") for end in ends) == 2

    serve(model.Model(breaks=3), backend, test)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of httpx
def test_gateway_closes_the_stream_when_the_client_leaves(model: ModuleType, backend: str) -> None:
    """Nobody waits for the rest: neither the gateway nor the model goes on."""
    server = model.Model()

    async def test(clients: Clients) -> None:
        url = "http://gateway/answers"
        async with clients.client.stream("POST", url, json={"prompt": "?"}) as response:
            async for _ in response.aiter_text():
                break
            assert server.open == 1
        await anyio.sleep(0.2)
        assert server.open == 0

    serve(server, backend, test)


def test_gateway_says_that_it_is_busy(model: ModuleType, backend: str) -> None:
    """A model that is down is a 503 with a Retry-After, soon."""

    async def test(clients: Clients) -> None:
        assert (await clients.ask("What is it?"))[0] == 503

    serve(model.Model(allows=0.001), backend, test)


def test_pipeline_waits_as_the_error_asks(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is waited out, and costs no attempt."""
    run(load(HOME / "pipeline.py", "example_pipeline").main, backend=backend)
    assert capsys.readouterr().out == "HELLO after 2 s, in 2 attempts\n"
