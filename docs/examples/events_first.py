"""One event, three handlers, in two tiers."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event, EventKey, EventPriority

LOGIN = EventKey[str]("user.login")  # the data of this event is a string
emitter = EventEmitter()


@emitter.on(LOGIN)
async def greet(event: Event[str]) -> None:
    await anyio.sleep(0.1)
    print(f"hello {event.data}")


@emitter.on("user.*")
async def note(event: Event[str]) -> None:
    await anyio.sleep(0.05)
    print(f"{event.name} from {event.metadata['address']}")


@emitter.on(LOGIN, priority=EventPriority.HIGH)
def check(event: Event[str]) -> None:
    if event.data == "mallory":
        print("mallory stays outside")
        event.stop()


async def main() -> None:
    for name in ("ada", "mallory"):
        start = anyio.current_time()
        event = await emitter.emit(
            LOGIN, name, metadata={"address": "10.0.0.7"}
        )
        print(
            f"{event.data}: stopped={event.stopped}, {anyio.current_time() - start:.1f} s"
        )


if __name__ == "__main__":
    anyio.run(main)
