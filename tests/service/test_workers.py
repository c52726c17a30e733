"""Workers that a supervisor forks, with one socket for all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.service.client import Load

if TYPE_CHECKING:
    from tests.service.conftest import Start


def test_forked_workers_drain(start: Start) -> None:
    """Each worker answers what it has accepted, ends with 0, and writes its log to the end."""
    service = start(
        "prefork",
        MTAIO_HEALTH_BIND="127.0.0.1:0",
        MTAIO_LOG_CONSOLE="0",
        MTAIO_SHUTDOWN_TIMEOUT="30",
    )
    workers = {line.split()[1] for line in service.out.wait("worker", 2)}
    load = Load(service.address, [f"/pid?{number}" for number in range(400)]).start().join()
    assert (load.unanswered, load.broken) == ([], [])
    last = Load(service.address, [f"/until-draining?{number}" for number in range(400, 450)])
    last.start()
    service.out.wait("in flight", 450)
    service.send()
    assert service.wait() == 0
    last.join()
    assert (last.unanswered, last.broken) == ([], [])
    assert service.out.lines[-1] == "codes 0 0"
    assert service.seconds < 30
    answers = [*load.answers.values(), *last.answers.values()]
    assert {answer.body.decode() for answer in answers} <= workers
    # On a busy machine the monitor may have said that an event loop has not answered for so long.
    answered = [
        found[1] for line in service.log() if (found := re.search(r"answered (\d+)$", line))
    ]
    assert sorted(answered, key=int) == [str(number) for number in range(450)]
