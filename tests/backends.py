"""
The backends to test on.

Told by looking for their modules: `anyio.get_available_backends` tries again to import a missing one
each time it is asked.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

BACKENDS: Final = tuple(name for name in ("asyncio", "trio") if find_spec(name))
