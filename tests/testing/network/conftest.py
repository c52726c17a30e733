"""Networks are simulated on Linux; the tests need what only Linux has, and some of them trio."""

from __future__ import annotations

import sys
from importlib.util import find_spec

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]
if find_spec("trio") is None:
    collect_ignore_glob += ["test_corners.py", "test_hooks.py", "test_random_like_loopback.py"]
