"""A real Chromium, driven over the pipe of its DevTools protocol: nothing to install beside it."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE: Final = 30.0
"""Seconds that a browser on a busy machine may take for anything."""

START: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def program() -> str | None:
    """Return the path of the browser, or None if this machine has none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def high_pipe() -> tuple[int, int]:
    """Return the ends of a pipe, out of the way of the low numbers that the browser expects."""
    low = os.pipe()
    if sys.platform == "win32":
        return low
    read = fcntl.fcntl(low[0], fcntl.F_DUPFD_CLOEXEC, 10)
    write = fcntl.fcntl(low[1], fcntl.F_DUPFD_CLOEXEC, 10)
    for end in low:
        os.close(end)
    return read, write


class Browser:
    """A browser without a window and with an empty profile, for the length of a block."""

    def __init__(self, *, environment: dict[str, str] | None = None) -> None:
        path = program()
        assert path is not None, "no Chromium here: apt-get install chromium"
        self._profile = tempfile.mkdtemp(prefix="mtaio-chromium-")
        from_us, self._write = high_pipe()
        self._read, to_us = high_pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--remote-debugging-pipe",  # it reads descriptor 3 and writes to 4
            f"--user-data-dir={self._profile}",
        ]
        self._process = subprocess.Popen(  # noqa: S603 - the program found above
            [sys.executable, "-c", START, str(from_us), str(to_us), path, *options],
            pass_fds=(from_us, to_us),
            env={**os.environ, **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self._number = 0
        self._changed = threading.Condition()
        self._replies: dict[int, dict[str, Any]] = {}
        self.tabs: dict[str, Tab] = {}
        self._reader = threading.Thread(target=self._receive, daemon=True)
        self._reader.start()

    def _receive(self) -> None:
        """Take in replies and events until the browser has closed its end."""
        rest = b""
        while chunk := os.read(self._read, 1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            with self._changed:
                for each in messages:
                    message = json.loads(each)
                    if "id" in message:
                        self._replies[message["id"]] = message
                    elif tab := self.tabs.get(message.get("sessionId", "")):
                        tab.events.append((message["method"], message["params"]))
                self._changed.notify_all()

    def call(self, method: str, *, session: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol, and return its result."""
        with self._changed:
            self._number += 1
            number = self._number
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._replies, PATIENCE), method
            reply = self._replies.pop(number)
        assert "error" not in reply, (method, reply)
        return reply["result"]

    def tab(self) -> Tab:
        """Open an empty tab."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        return Tab(self, session["sessionId"], target["targetId"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.call("Browser.close")
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)


class Tab:
    """A tab, and all that has happened in it."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._browser, self._session, self._target = browser, session, target
        browser.tabs[session] = self
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol for this tab."""
        return self._browser.call(method, session=self._session, **params)

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)
        del self._browser.tabs[self._session]

    def look(
        self, *, width: int = 1280, height: int = 900, theme: str = "light", scale: float = 1
    ) -> None:
        """Give the tab a size and a colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": theme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )

    def speak(self, language: str) -> None:
        """Give the tab a language."""
        version = self._browser.call("Browser.getVersion")["userAgent"]
        self.call("Emulation.setUserAgentOverride", userAgent=version, acceptLanguage=language)

    def goto(self, url: str) -> None:
        """Open an address, and wait until the page is loaded."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page; what it promises is waited for."""
        reply = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, expression: str, within: float = PATIENCE) -> Any:
        """Wait until an expression is true in the page, and return its value."""
        end = time.monotonic() + within
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"never: {expression}\n{self.text()[:1000]}"
            time.sleep(0.05)
        return value

    def text(self, selector: str = "body") -> str:
        """Return the text that an element shows."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def hover(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Move the pointer to a place in an element, given as shares of its width and height."""
        box = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.left + b.width * {x}, b.top + b.height * {y}]; }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a picture of the tab, or of the whole page, as PNG."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for."""
        return [
            params["request"]["url"]
            for method, params in list(self.events)
            if method == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Return the errors and warnings that a developer would see in the console."""
        found: list[str] = []
        for method, params in list(self.events):
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
                found.append(json.dumps(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
                found.append(params["entry"]["text"])
        return found
