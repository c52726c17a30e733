"""A real Chromium, the one of the system, driven by Playwright."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, Final, Self

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser as Chromium

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE: Final = 30.0
"""Seconds that a browser on a busy machine may take for anything."""

EVENTS: Final = (
    "Log.entryAdded",
    "Network.requestWillBeSent",
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
)


def program() -> str | None:
    """Return the path of the browser, or None if this machine has none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """A browser without a window and with an empty profile, for the length of a block."""

    def __init__(self, *, environment: dict[str, str] | None = None) -> None:
        path = program()
        assert path is not None, "no Chromium here: apt-get install chromium"
        self._path, self._environment = path, environment
        self._manager = sync_playwright()
        self._chromium: Chromium

    def tab(self) -> Tab:
        """Open an empty tab."""
        return Tab(self._chromium)

    def __enter__(self) -> Self:
        playwright = self._manager.start()
        self._chromium = playwright.chromium.launch(
            executable_path=self._path,
            args=["--no-sandbox", "--disable-quic", "--disable-background-networking"],
            env={**os.environ, **(self._environment or {})},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._chromium.close()
        self._manager.__exit__()


class Tab:
    """A tab, and all that has happened in it."""

    def __init__(self, chromium: Chromium) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._page = chromium.new_context().new_page()
        self._session = self._page.context.new_cdp_session(self._page)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        for event in EVENTS:
            self._session.on(event, lambda params, name=event: self.events.append((name, params)))

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the DevTools protocol for this tab."""
        return self._session.send(method, params)

    def close(self) -> None:
        """Close the tab."""
        self._page.context.close()

    def look(self, *, width: int = 1280, height: int = 900, theme: str = "light") -> None:
        """Give the tab a size and a colour scheme."""
        self._page.set_viewport_size({"width": width, "height": height})
        dark: Any = theme
        self._page.emulate_media(color_scheme=dark, reduced_motion="reduce")

    def speak(self, language: str) -> None:
        """Give the tab a language."""
        agent = self.evaluate("navigator.userAgent")
        self.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)

    def goto(self, url: str) -> None:
        """Open an address, and wait until the page is loaded."""
        self._page.goto(url)

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
        self._page.keyboard.press(key)

    def hover(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Move the pointer to a place in an element, given as shares of its width and height."""
        box = self._page.locator(selector).first.bounding_box()
        assert box is not None
        self._page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the tab as PNG."""
        self._page.screenshot(path=path)

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for."""
        self.evaluate("0")  # events are delivered while something is asked
        return [
            params["request"]["url"]
            for method, params in list(self.events)
            if method == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Return the errors and warnings that a developer would see in the console."""
        self.evaluate("0")  # as above
        found: list[str] = []
        for method, params in list(self.events):
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
                found.append(json.dumps(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
                found.append(params["entry"]["text"])
        return found
