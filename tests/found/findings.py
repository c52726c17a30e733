"""
The defects of other libraries in docs/examples/found, each of one version, which pyproject pins.

``python -m tests.found.findings`` writes again what the pages show of those that are installed;
with the name of one that a network shows, it prints the report for the library's tracker.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import re
import sys
import tomllib
import warnings
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from tests import pages
from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOME: Final = ROOT / "docs" / "examples" / "found"
PAGES: Final = [ROOT / "docs" / language / "guides" / "found.md" for language in ("en", "ja")]
"""The table of all defects, in each language; the folder of the same name tells them."""

GROUPS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]

PINNED: Final[dict[str, str]] = dict(
    re.findall(r"^([\w-]+)(?:\[.*\])?==(\S+)", "\n".join(map(str, GROUPS["found"])), re.MULTILINE)
)
"""The version of each library in which the defects are; another may have mended them."""


def is_here(package: str) -> bool:
    """Whether the very version of a library is installed that is pinned."""
    try:
        return version(package) == PINNED[package]
    except PackageNotFoundError:
        return False


HUNTED: Final = all(map(is_here, PINNED))
"""Whether all of them are, as in the session "found"."""


@dataclass(frozen=True)
class Finding:
    """A defect: an explored test that finds it, and a program without mtaio that shows it."""

    name: str
    package: str | None = None
    """The library's distribution; None for Python itself."""
    fixed: tuple[int, int] | None = None
    """The Python that has mended it, if it is Python's."""
    trio: bool | None = None
    """Whether the search finds it on trio as well; None if it is a matter of one backend."""
    plain: str = "asyncio"
    """The backend on which the program without mtaio runs, and on which the guide's run is."""
    always: bool = False
    """Whether the first run shows it: what the network does is enough."""
    until: tuple[int, int] | None = None
    """The Python from which on the run goes another way than the page says."""
    needs: str | None = None
    """Another module that its programs need."""

    def __str__(self) -> str:
        return self.name

    @property
    def here(self) -> bool:
        """Whether this is the version that has the defect."""
        if self.until is not None and sys.version_info >= self.until:
            return False
        if self.package is None:
            return self.fixed is None or sys.version_info < self.fixed
        return is_here(self.package) and (self.needs is None or find_spec(self.needs) is not None)

    @cached_property
    def explored(self) -> Callable[[], None]:
        """The test as pytest finds it."""
        module = load(HOME / f"{self.name}.py", f"docs.examples.found.{self.name}")
        (test,) = (value for key, value in vars(module).items() if key.startswith("test_"))
        found: Callable[[], None] = test
        return found

    @property
    def search(self) -> Any:
        """What `explore` does with the test."""
        return vars(self.explored)["__mtaio_search__"]

    def shown(self, program: str) -> str:
        """Return what the page shows of what a program prints, or of what a search finds."""
        return (HOME / f"{program}.out").read_text(encoding="utf-8")

    def summary(self, error: BaseException) -> str:
        """Return what the page shows of a failure: the first line, and how to see it again."""
        first, *_, last = self.said(error).splitlines()
        return f"{first.partition('. ')[0]}\n{last.partition('::')[0]}\n"

    def said(self, error: BaseException) -> str:
        """Return the whole failure without folders, with the test to replay."""
        kind = type(error)
        name = kind.__qualname__
        where = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        text = "\n".join([f"{where}{name}: {error}", *error.__notes__])
        text = re.sub(r"\S*[\\/](?:site-packages|found)[\\/]", "", text)
        test = self.explored.__name__
        return re.sub(
            r"(?m)^(to see it again: pytest --mtaio-replay \S+).*$",
            rf"\1 docs/examples/found/{self.name}.py::{test}",
            text + "\n",
        )

    def fails(self, backend: str | None = None, **told: Any) -> Exception | None:
        """Search on a backend, and return the failure; None if there is none."""
        own = self.search.backends
        self.search.backends = (backend or self.plain,)
        try:
            with self.search.told(**told), litter():
                self.explored()
        except Exception as error:  # noqa: BLE001 - is the result
            return error
        finally:
            self.search.backends = own
        return None

    def found_by(self, backend: str) -> set[str]:
        """Return the modes of cancellation which find it by themselves, in the plain order."""
        own = self.search.inject
        found: set[str] = set()
        for mode in own:
            if mode != "native" or backend == "asyncio":
                self.search.inject = (mode,)
                if self.fails(backend, seeds=0, delays=0) is not None:
                    found.add(mode)
        self.search.inject = own
        return found

    def report(self) -> str:
        """Return what may be sent to the library's tracker, with the program and its output."""
        text = (HOME / f"{self.name}.txt").read_text(encoding="utf-8")
        program = (HOME / f"{self.name}_plain.py").read_text(encoding="utf-8")
        output = self.shown(f"{self.name}_plain")
        return f"{text}\n```python\n{program}```\n\nIt prints:\n\n```text\n{output}```\n"

    def prints(self) -> str:
        """Run the program without mtaio, in real time, and return what it prints."""
        plain = f"{self.name}_plain"
        module = load(HOME / f"{plain}.py", f"docs.examples.found.{plain}")
        with redirect_stdout(StringIO()) as printed, litter():
            if self.plain == "trio":
                importlib.import_module("trio").run(module.main)
            else:
                asyncio.run(module.main())
        return printed.getvalue()


@contextmanager
def litter() -> Iterator[None]:
    """Collect no garbage meanwhile, and none of what libraries leave open is worth a warning."""
    gc.collect()
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()
            gc.enable()


FINDINGS: Final = (
    Finding("aiohttp_cleanup", "aiohttp", always=True),
    Finding("aiohttp_limit", "aiohttp"),
    Finding("aiohttp_waiter", "aiohttp"),
    Finding("aiojobs_slot", "aiojobs"),
    Finding("aiorwlock_readers", "aiorwlock"),
    Finding("anyio_bind", "anyio", plain="trio", always=True),
    Finding("anyio_condition", "anyio", trio=False),
    Finding("anyio_stream", "anyio", trio=False),
    Finding("anyio_tls", "anyio", trio=False, always=True, needs="trustme"),
    Finding("anyio_unread", "anyio", always=True),
    Finding("async_lru_retry", "async-lru"),
    Finding("asyncio_condition", fixed=(3, 13)),
    Finding("cashews_shared", "cashews"),
    Finding("httpcore_aclose", "httpcore", trio=False),
    Finding("httpcore_handshake", "httpcore", trio=True),
    Finding("httpcore_pool", "httpcore", trio=True),
    Finding("hypercorn_reader", "hypercorn", trio=False, always=True, until=(3, 12)),
    Finding("trio_websocket_timeout", "trio-websocket", plain="trio", always=True),
    Finding("websockets_close", "websockets", always=True),
)


def rewrite() -> None:
    """Write again what the pages show."""
    if HUNTED:
        with redirect_stdout(StringIO()) as printed:
            load(HOME / "patience.py", "docs.examples.found.patience").main()
        (HOME / "patience.out").write_text(printed.getvalue(), encoding="utf-8")
    for finding in FINDINGS:
        if not finding.here:
            print(f"{finding} is not here")  # noqa: T201 - a script
            continue
        error = finding.fails()
        assert error is not None, finding
        (HOME / f"{finding}.out").write_text(finding.summary(error), encoding="utf-8")
        (HOME / f"{finding}_plain.out").write_text(finding.prints(), encoding="utf-8")
    pages.rewrite()


if __name__ == "__main__":
    asked = sys.argv[1:]
    if asked:
        for finding in FINDINGS:
            if finding.name in asked:
                print(finding.report())  # noqa: T201 - a script
    else:
        rewrite()
