"""What our repairs of hypercorn rest on is what it was when they were made."""

from __future__ import annotations

import hashlib
import inspect
from importlib import import_module
from importlib.metadata import version
from typing import Any

KNOWN = {
    "asyncio.serve": {"ee4a45010995", "35bb0fa98923"},
    "asyncio.run.worker_serve": {"9313a03d4513", "ae30269c42b9"},
    "asyncio.run.TCPServer": {"bba25bf5e199", "3bfa72b31950"},
    "trio.serve": {"b2bedde71197", "9b117d42d6cf"},
    "trio.run.worker_serve": {"22efe0285dc0", "8dc8347a9fc3"},
    "trio.run.TCPServer": {"6c26a3975766", "5593e38b83d3"},
    "protocol.h11.H11Protocol": {"b2318d0db596", "b32a61e0a8ca"},
    "protocol.ws_stream.WSStream": {"67434c428a1a", "f4833bc5aae4"},
    "config.Config.create_sockets": {"3ba0bab3918e"},
    "events.Updated": {"2ac39e7065c0"},
}
"""The source of each, in the releases with which tests/realtime/test_server.py was green."""


def found(name: str) -> Any:
    """Return what a name in hypercorn stands for."""
    module, _, attribute = f"hypercorn.{name}".rpartition(".")
    if module.endswith(".Config"):
        module, _, kind = module.rpartition(".")
        return getattr(getattr(import_module(module), kind), attribute)
    return getattr(import_module(module), attribute)


def test_what_the_repairs_rest_on() -> None:
    """After a release that fails here: see docs/en/design/hypercorn.md for what there is to do."""
    changed = {
        name: digest
        for name, known in KNOWN.items()
        if (digest := hashlib.sha256(inspect.getsource(found(name)).encode()).hexdigest()[:12])
        not in known
    }
    assert not changed, f"hypercorn {version('hypercorn')} has changed {', '.join(changed)}"
