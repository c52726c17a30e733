"""The client of a chat service that limits as Discord does, unchanged."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from mtaio.testing import Network, assert_quiescent, run, settle
from tests.programs import ROOT, load

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")

HOME = ROOT / "docs" / "examples" / "clients"


def test_nothing_is_lost_and_little_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the pace that all requests together may have: 30 a second."""
    monkeypatch.setenv("CHAT_URL", "http://chat")
    server: ModuleType = load(HOME / "rest_server.py", "example_rest_server")
    client: ModuleType = load(HOME / "rest_client.py", "example_rest_client")
    chat = server.Chat()

    async def main() -> None:
        async with Network(latency=0.02) as net:
            net.host("chat").start(chat.serve)
            await settle()
            await client.main()
        assert_quiescent(net)

    run(main, backend=backend)
    assert chat.answered[200] == 300
    assert chat.answered[429] <= 5
    assert chat.answered[404] == 0
