"""The programs of the guide to FastAPI under uvicorn, with --reload too, and under mtaio run."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

import httpx

from tests.programs import ROOT
from tests.service.harness import Service, free_address, wait_until

if TYPE_CHECKING:
    from pathlib import Path

HOME = ROOT / "docs" / "examples" / "fastapi"


def serve(home: Path, folder: Path, *command: str, address: str) -> Service:
    """Start a program of ``home`` by a module that serves it."""
    options = {"PYTHONPATH": str(home), "RATES_API": "http://127.0.0.1:1"}
    service = Service("", "", folder, options, ["-m", *command])
    service.address = address
    return service


def uvicorn(home: Path, folder: Path, target: str, *options: str) -> Service:
    """Start a program of ``home`` under uvicorn."""
    address = free_address()
    port = address.rpartition(":")[2]
    return serve(home, folder, "uvicorn", target, "--port", port, *options, address=address)


def test_uvicorn(tmp_path: Path) -> None:
    """Told to stop, it finishes what was begun after a response, and ends as uvicorn does."""
    with uvicorn(HOME, tmp_path, "orders:app", "--timeout-graceful-shutdown", "5") as service:
        service.wait_readiness(200)
        answer = httpx.post(f"http://{service.address}/orders/tea")
        assert answer.status_code == 202
        assert service.stop() == -signal.SIGTERM
        assert "sent: receipt for tea" in service.out.lines
        assert [line.rpartition(" ")[2] for line in service.log()][-1] == "stopped"


def test_reload(tmp_path: Path) -> None:
    """When the source changes, the application stops, frees its ports, and the new one starts."""
    source = tmp_path / "main.py"
    shutil.copy(HOME / "main.py", source)
    with uvicorn(tmp_path, tmp_path, "main:app", "--reload", "--reload-dir", str(tmp_path)) as it:

        def price() -> float:
            try:
                return float(httpx.get(f"http://{it.address}/prices/tea", timeout=30).json()["tea"])
            except httpx.TransportError:  # it starts
                return 0.0

        it.wait_readiness(200)
        assert price() == 4.5
        source.write_text(source.read_text("utf-8").replace("* 1.5", "* 2"), "utf-8")
        wait_until(lambda: price() == 6.0)
        assert it.readiness() == 200
        labels = 'method="GET",route="/prices/{sku}",status="200"'
        count = f"mtaio_request_metrics_duration_seconds_count{{{labels}}} 1\n"
        wait_until(lambda: count in httpx.get(f"http://{it.probes}/metrics").text)
        it.stop(signal.SIGINT)
        assert it.readiness() == 0
    states = [line.split(": ")[-1].partition(" ")[0] for line in it.log()]
    assert [state for state in states if state in {"started", "stopped"}] == [
        *("started", "stopped", "started", "stopped"),
    ]


def test_mtaio_run(loop: str, tmp_path: Path) -> None:
    """On each loop: a call that fails is retried and answered with 503, and the end is in order."""
    address = free_address()
    command = ("mtaio", "run", "rates:app", "--bind", address, "--backend", loop)
    with serve(HOME, tmp_path, *command, address=address) as service:
        service.wait_readiness(200)
        answer = httpx.get(f"http://{address}/rates/usd", timeout=30)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        metrics = f"http://{service.probes}/metrics"
        labels = 'name="server",method="GET",route="/rates/{currency}",status="503"'
        for metric in (
            'mtaio_pipeline_failed_total{name="api"} 1\n',
            f"mtaio_request_metrics_duration_seconds_count{{{labels}}} 1\n",
        ):
            wait_until(lambda metric=metric: metric in httpx.get(metrics).text)  # type: ignore[misc] # a default
        assert service.stop() == 0


def test_mtaio_run_of_the_asgi_application(tmp_path: Path) -> None:
    """The application that is its lifespan runs in each worker, and serves it."""
    address = free_address()
    command = ("mtaio", "run", "main:app", "--bind", address, "--workers", "2")
    with serve(HOME, tmp_path, *command, address=address) as service:
        service.err.wait("all 2 workers are ready")
        assert httpx.get(f"http://{address}/prices/tea", timeout=30).json() == {"tea": 4.5}
        assert service.readiness() == 200  # the program's own check is asked
        assert service.stop() == 0
