"""Four mistakes, all reported at once, and a misspelt name: a warning."""

import warnings

import anyio

from mtaio import Settings

ENVIRONMENT = {
    "MTAIO_MAX_WORKERS": "zero",
    "MTAIO_LOG_CONSOLE": "maybe",
    "MTAIO_HEALTH_BIND": "0.0.0.0:9464",
    "MTAIO_DRAIN_DELAY": "20",
    "MTAIO_CACHE_TLL": "60",
}


async def main() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            Settings.from_env(ENVIRONMENT)
        except ValueError as error:
            print(error)
    print("warning:", caught[0].message)


if __name__ == "__main__":
    anyio.run(main)
