"""What the tests of monitoring share."""

from __future__ import annotations

import sys

collect_ignore_glob = ["*_posix.py"] if sys.platform == "win32" else []
