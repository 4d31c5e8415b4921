"""A device that behaves, in a process of its own: `python -m tests.abuse.good_device PORT < KEY_IN_HEX`.

Registers again and again on one connection, and prints for each time when it was over (monotonic seconds, the same for
all processes), how long it took, and the status.
"""

import asyncio
import sys
import time

from tests.abuse.site import GOOD_ADDRESS, Stranger, connect_from, token

GOOD_DEVICE = "good-device"
PAUSE_S = 0.02


async def behave(port: int, key: bytes) -> None:
    """For ever, unless it is cut off."""
    reader, writer = await connect_from(GOOD_ADDRESS, ("127.0.0.1", port))
    device = Stranger(reader, writer)
    await device.log_in(GOOD_DEVICE, token(GOOD_DEVICE, key).encode())
    while True:
        began_at = time.monotonic()
        status, _ = await device.register()
        ended_at = time.monotonic()
        print(f"{ended_at:.6f} {ended_at - began_at:.6f} {status}", flush=True)
        await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    asyncio.run(behave(int(sys.argv[1]), bytes.fromhex(sys.stdin.read())))
