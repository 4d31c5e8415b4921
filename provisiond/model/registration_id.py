"""The id that a device registers under."""

import re
from dataclasses import dataclass
from typing import Final

from provisiond.errors import MalformedRequest

_REGISTRATION_ID: Final = re.compile(r"[A-Za-z0-9\-._:]{0,127}[A-Za-z0-9\-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class RegistrationId:
    """A registration id as the device spelt it; two that differ only in case are the same (Azure DPS concepts).

    Build it with `parse`; `text` is safe in a topic level, a log line and a file name.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> "RegistrationId":
        """Check the syntax: 1 to 128 of `A-Z a-z 0-9 - . _ :`, the last a letter, a digit or `-`.

        Raises:
            MalformedRequest: anything else.
        """
        if _REGISTRATION_ID.fullmatch(text) is None:
            raise MalformedRequest(
                f"registration id {text[:140]!r} is not 1 to 128 of A-Z a-z 0-9 - . _ : ending in a letter, digit or -",
                public="Registration id is malformed",
            )
        return cls(text)

    @property
    def key(self) -> str:
        """The spelling records are stored and compared under."""
        return self.text.lower()

    def __str__(self) -> str:
        return self.text
