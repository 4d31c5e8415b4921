"""What the machine gives: time and randomness."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Wall time, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class Entropy(Protocol):
    """Unguessable bytes."""

    def token_bytes(self, size_bytes: int) -> bytes:
        """Cryptographically random bytes."""
        ...
