"""
Canaries: each private hook on which virtual time stands, as it must be.

When one of these, or of their like in test_asyncio and test_trio, fails after an upgrade, virtual
time may be broken in ways that other tests show less clearly. A hook that is missing is told to the
user.
"""

from __future__ import annotations

import inspect

import anyio
import pytest
from anyio import to_process, to_thread
from anyio._core._eventloop import get_async_backend

from mtaio.testing import _threads, run


def test_anyio_thread_entry_points(backend: str) -> None:
    """Anyio's calls to and from threads go through these classmethods, with these parameters."""
    owner = get_async_backend(backend)
    assert isinstance(vars(owner)[_threads.TO_THREAD], classmethod)
    assert isinstance(vars(owner)[_threads.FROM_THREAD], classmethod)
    to_thread_names = list(inspect.signature(getattr(owner, _threads.TO_THREAD)).parameters)
    assert to_thread_names == ["func", "args", "abandon_on_cancel", "limiter"]
    from_thread_names = list(inspect.signature(getattr(owner, _threads.FROM_THREAD)).parameters)
    assert from_thread_names == ["func", "args", "token"]
    process_names = list(inspect.signature(to_process.run_sync).parameters)
    assert process_names == ["func", "args", "cancellable", "limiter"]


@pytest.mark.parametrize("name", [_threads.TO_THREAD, _threads.FROM_THREAD])
def test_missing_thread_entry_point(
    backend: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An anyio without them is refused, in words."""
    monkeypatch.setattr(get_async_backend(backend), name, lambda: None)
    with pytest.raises(
        RuntimeError,
        match=rf"^mtaio\.testing cannot see worker threads: this version of anyio has no "
        rf"classmethod {name} in <class .*Backend'>\. Use a version that mtaio was tested with\.$",
    ):
        run(anyio.sleep, 1, backend=backend)


async def test_hidden_thread_is_counted() -> None:
    """A thread that trio starts on its own account is seen, beside those of anyio."""
    await to_thread.run_sync(int)
    await anyio.getaddrinfo("localhost", 80)
