"""What stands in the way of the executor's tests on some platforms."""

from __future__ import annotations

import sys

collect_ignore_glob = ["*_posix.py"] if sys.platform == "win32" else []
