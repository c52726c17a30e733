"""Where each setting came from."""

import anyio

from mtaio import Settings

ENVIRONMENT = {
    "MTAIO_CACHE_TTL": "60",
    "MTAIO_HEALTH_TOKEN": "9f86d081884c7d65",
}


async def main() -> None:
    settings = Settings.from_env(ENVIRONMENT, max_workers=8)
    for each in settings.describe():
        if each.source != "default":
            print(f"{each.variable}={each.value} ({each.source})")
    print("secret in the repr:", "9f86d081884c7d65" in repr(settings))


if __name__ == "__main__":
    anyio.run(main)
