"""Puts challenges into the store and takes them out again; prints each key that was taken, once it was.

Beside the key, monotonic seconds: before it was asked for, and after it was had.
"""

import asyncio
import itertools
import sys
import time
from datetime import UTC, datetime, timedelta

from provisiond.errors import StoreError
from provisiond.store import SqliteStore
from tests.crash.with_normal import relax


async def main() -> None:
    """Until the store fails."""
    async with await SqliteStore.open(sys.argv[1]) as store:
        for number in itertools.count():
            key = f"{sys.argv[2]}-{number}"
            try:
                await store.put_challenge(
                    key=key, challenge=b"nonce", expires_at=datetime.now(UTC) + timedelta(minutes=30)
                )
                asked_s = time.monotonic()
                if await store.take_challenge(key) is None:
                    return
            except StoreError:
                return
            sys.stdout.write(f"{key} {asked_s} {time.monotonic()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[3:] == ["relaxed"]:
        relax()
    asyncio.run(main())
