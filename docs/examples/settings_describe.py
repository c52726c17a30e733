"""The settings of a service with their sources, and without secrets."""

import tempfile
from pathlib import Path

import anyio

from mtaio import Settings


def read_settings() -> Settings:
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder, "health-token")
        secret.write_text("9f86d081884c7d65\n", encoding="utf-8")
        environment = {
            "MTAIO_CACHE_TTL": "60",
            "MTAIO_HEALTH_BIND": "0.0.0.0:9464",
            "MTAIO_HEALTH_TOKEN_FILE": str(secret),
        }
        return Settings.from_env(environment, max_workers=8)


async def main() -> None:
    settings = read_settings()
    for each in settings.describe():
        if each.source != "default":
            print(
                f"{each.variable}={each.value} ({each.source}; default {each.default})"
            )
    print("secret in the repr:", "9f86d081884c7d65" in repr(settings))


if __name__ == "__main__":
    anyio.run(main)
