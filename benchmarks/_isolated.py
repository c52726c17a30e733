"""``python -m benchmarks._isolated MODULE FUNCTION LOOP``: one measurement in a new process."""

from __future__ import annotations

import importlib
import sys

from benchmarks._harness import run_on

if __name__ == "__main__":
    module, function, loop = sys.argv[1:]
    print(run_on(loop, getattr(importlib.import_module(module), function)))
