"""
Many look-ups of one key each become a few of many keys, on asyncio and on trio.

Promise: a key is looked up once, however many tasks ask for it; at most
``max_calls`` calls are in progress; a look-up that nobody waits for any more
is cancelled.
"""

from batchload._loader import Loader

__all__ = ["Loader"]
