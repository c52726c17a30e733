"""
The backends to test on.

Found by looking for their modules: `anyio.get_available_backends` tries to import a missing one
again each time.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

BACKENDS: Final = tuple(name for name in ("asyncio", "trio") if find_spec(name))
