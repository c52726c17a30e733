"""async-lru 2.4.0: a cancelled load removes the next one from the cache."""

from anyio.lowlevel import checkpoint
from async_lru import alru_cache

from mtaio.testing import Victim, explore


# --8<-- [start:test]
@explore(backends=("asyncio",))
async def test_loaded_value_is_kept(victim: Victim) -> None:
    """When a call is cancelled and made again, its value is in the cache."""

    @alru_cache
    async def load(key: str) -> str:
        await checkpoint()
        return key.upper()

    await victim(load, "a")
    await load("a")
    assert load.cache_contains("a"), "it is not in the cache"


# --8<-- [end:test]
