"""The files in docs/examples that deploy a service agree with mtaio and with one another."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.app._checklist._item import ROWS
from mtaio.config import Settings
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ROOT / "docs" / "examples"
FILES = {
    name: (EXAMPLES / path).read_text(encoding="utf-8")
    for name, path in {
        "image": "deployment/Dockerfile",
        "compose": "deployment/compose.yaml",
        "systemd": "deployment/shop.service",
        "kubernetes": "kubernetes/deployment.yaml",
    }.items()
}
DEPLOYED = sorted(FILES.keys() - {"image"})

VARIABLE = {
    "compose": r'^ +(\w+): "?([^" #\n]+)',
    "systemd": r"^Environment=(\w+)=(.*)$",
    "kubernetes": r'^ +- \{ name: (\w+), value: "?([^" ]+)"? \}',
}
PATIENCE = {
    "compose": r"^ +stop_grace_period: (\d+)s",
    "systemd": r"^TimeoutStopSec=(\d+)$",
    "kubernetes": r"^ +terminationGracePeriodSeconds: (\d+)",
}


def only(pattern: str, text: str) -> str:
    """Return the group of the one match, on whatever line it is."""
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return str(found)


def variables(name: str) -> dict[str, str]:
    """Return what a file sets of mtaio's variables."""
    found = re.findall(VARIABLE[name], FILES[name], re.MULTILINE)
    return {variable: value for variable, value in found if variable.startswith("MTAIO_")}


def instruction(name: str) -> list[list[str]]:
    """Return the arguments of one of the image's instructions, each time it stands there."""
    return [
        json.loads(each) for each in re.findall(rf"^{name} (.*)$", FILES["image"], re.MULTILINE)
    ]


@pytest.mark.parametrize("name", DEPLOYED)
def test_variables_are_settings(name: str, tmp_path: Path) -> None:
    """What a file sets is read and accepted, and what is in flight ends before it is cancelled."""
    environ = variables(name)
    assert "MTAIO_HEALTH_TOKEN" not in environ
    token = tmp_path / "token"
    token.write_text("of the test\n", encoding="utf-8")
    settings = Settings.from_env(environ | {"MTAIO_HEALTH_TOKEN_FILE": str(token)})
    assert settings.health_token is not None
    assert settings.health_bind.endswith(":9464")
    assert settings.default_timeout < settings.shutdown.drain


@pytest.mark.parametrize("name", DEPLOYED)
def test_nobody_kills_before_the_shutdown_is_over(name: str) -> None:
    """What stops the service waits a few seconds longer than the service takes at most."""
    patience = float(only(PATIENCE[name], FILES[name]))
    assert float(variables(name)["MTAIO_SHUTDOWN_TIMEOUT"]) + 5 <= patience


def test_ports_agree() -> None:
    """The image serves where the cluster and Compose look for it."""
    port = only(r"SHOP_BIND=0\.0\.0\.0:(\d+)$", FILES["image"])
    assert only(r"^EXPOSE (.*)$", FILES["image"]) == f"{port} 9464"
    assert only(r"name: http, containerPort: (\d+)", FILES["kubernetes"]) == port
    assert only(r"name: probes, containerPort: (\d+)", FILES["kubernetes"]) == "9464"
    assert f'ports: ["{port}:{port}"]' in FILES["compose"]


def test_secret_is_where_the_settings_look_for_it() -> None:
    """The file that the variable names is the one that the secret is mounted as."""
    secret = only(r"^ +secrets: \[(\w+)\]$", FILES["compose"])
    assert variables("compose")["MTAIO_HEALTH_TOKEN_FILE"] == f"/run/secrets/{secret}"
    folder = only(r"name: probes, mountPath: (\S+),", FILES["kubernetes"])
    assert variables("kubernetes")["MTAIO_HEALTH_TOKEN_FILE"] == f"{folder}/token"
    credential = only(r"^LoadCredential=([\w-]+):", FILES["systemd"])
    assert variables("systemd")["MTAIO_HEALTH_TOKEN_FILE"] == f"%d/{credential}"
    logs = only(r"^LogsDirectory=(\w+)$", FILES["systemd"])
    assert variables("systemd")["MTAIO_LOG_FILE"].startswith(f"%L/{logs}/")


def test_image_starts_what_the_wheel_installs() -> None:
    """PID 1 is the service, with no shell before it, and not root."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (entry,) = instruction("ENTRYPOINT")
    assert entry == list(project["project"]["scripts"])
    assert instruction("CMD") == [["run", "shop:app"]]
    assert len(instruction("RUN")) == 3
    assert only(r"^USER (\d+):\d+$", FILES["image"]) != "0"
    assert only(r"^ExecStart=\S*/(.*)$", FILES["systemd"]) == "mtaio run shop:app"


@pytest.fixture(scope="module")
def answering() -> Iterator[tuple[int, list[int]]]:
    """Return the port of an HTTP server, and a list whose last number is its answer to probes."""
    answer = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer[-1] if self.path in {"/livez", "/readyz"} else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, answer
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["image", "compose"])
def test_health_check_fails_when_the_probe_does(
    name: str, answering: tuple[int, list[int]]
) -> None:
    """The command that Docker runs exits with 0 for 200 and with 1 for anything else."""
    port, answer = answering
    code = only(r'"(import http\.client.*)"', FILES[name])
    for status, exit_code in ((200, 0), (503, 1)):
        answer.append(status)
        with pytest.raises(SystemExit) as ended:
            exec(code.replace("9464", str(port)))  # noqa: S102 - as Docker does
        assert ended.value.code == exit_code


@pytest.mark.parametrize("language", ["en", "ja"])
def test_checklist_is_what_mtaio_check_goes_through(language: str) -> None:
    """The guide's checklist names each item of ``mtaio check`` once, and no other."""
    page = (ROOT / "docs" / language / "guides" / "deployment.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\|.*\| `mtaio check` \|\n\|-.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    cells = [row.split("|")[-2] for table in tables for row in table.splitlines()]
    named = [name.replace(" ", "_") for cell in cells for name in re.findall(r"`(.*?)`", cell)]
    assert sorted(named) == sorted(row.name for row in ROWS)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """The unit has no line that systemd does not know, and leaves little that could do harm."""
    unit = tmp_path / "shop.service"
    here = {"/opt/shop/venv/bin/mtaio": sys.executable, "/opt/shop": str(tmp_path)}
    text = FILES["systemd"]
    for there, path in here.items():
        text = text.replace(there, path)
    unit.write_text(text, encoding="utf-8")
    listening = (EXAMPLES / "deployment" / "shop.socket").read_text(encoding="utf-8")
    (tmp_path / "shop.socket").write_text(listening, encoding="utf-8")
    for command in (
        ["verify", str(tmp_path / "shop.socket")],
        ["security", "--offline=yes", "--threshold=20"],
    ):
        done = subprocess.run(  # noqa: S603 - of this machine, with a file of ours
            ["systemd-analyze", *command, str(unit)],  # noqa: S607 - wherever it is
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "shop.service" not in done.stderr  # of the machine's own units it may say anything


def test_manifests_are_yaml() -> None:
    """Each manifest is one document, and its probes ask what the kubelet may ask."""
    yaml: Any = importlib.import_module("yaml")  # untyped
    (service,) = yaml.safe_load(FILES["compose"])["services"].values()
    assert service["deploy"]["resources"]["limits"]["memory"] == "512M"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(isinstance(value, str) for value in service["environment"].values())
    pod = yaml.safe_load(FILES["kubernetes"])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert [probe["path"] for probe in probes] == ["/startupz", "/readyz", "/livez"]
    assert {probe["port"] for probe in probes} == {"probes"}
    assert "preStop" not in FILES["kubernetes"].replace("in place of a preStop hook", "")
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert all(isinstance(variable["value"], str) for variable in container["env"])
