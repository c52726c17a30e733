"""The service that `test_supervisor.py` runs in several processes."""

from __future__ import annotations

from mtaio.app import Application
from tests.service.scenarios import web

app = web(Application())
