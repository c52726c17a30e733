"""A handler that runs before the others, and can stop the event."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event, EventKey, EventPriority

LOGIN = EventKey[str]("user.login")  # the data of this event is a str
emitter = EventEmitter()


@emitter.on(LOGIN)
async def greet(event: Event[str]) -> None:
    print(f"hello {event.data}")


@emitter.on(LOGIN, priority=EventPriority.HIGH)
def check(event: Event[str]) -> None:
    if event.data == "mallory":
        event.stop()


async def main() -> None:
    for user in ("ada", "mallory"):
        event = await emitter.emit(LOGIN, user)
        print(f"{user}: stopped={event.stopped}")


if __name__ == "__main__":
    anyio.run(main)
