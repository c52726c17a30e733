"""
Whether an installed mtaio has all of its public names, run by the Python that has it.

``python -I tests/installed.py``, with no more than the wheel and what that brings. A name that
needs an extra says which; anything else that cannot be imported is an error.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import anyio
from anyio.lowlevel import checkpoint

import mtaio


def missing() -> list[str]:
    """Return each public name that cannot be had, and says no extra to install."""
    modules = [f"mtaio.{each.name}" for each in pkgutil.iter_modules(mtaio.__path__)]
    faults: list[str] = []
    for name in ["mtaio", *(each for each in modules if "._" not in each)]:
        module = importlib.import_module(name)
        for each in module.__all__:
            try:
                getattr(module, each)
            except ImportError as error:
                if "Install it with: pip install " not in str(error):
                    faults.append(f"{name}.{each}: {error}")
    return faults


async def main() -> None:
    """Run one call through the executor."""

    async def double(number: int) -> int:
        await checkpoint()
        return 2 * number

    executor = mtaio.TaskExecutor(2)
    assert await executor.map(double, range(5)) == [0, 2, 4, 6, 8]


if __name__ == "__main__":
    if "site-packages" not in (mtaio.__file__ or ""):
        sys.exit(f"{mtaio.__file__} is not the installed one")
    anyio.run(main)
    sys.exit("\n".join(missing()) or None)
