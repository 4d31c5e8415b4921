"""Values that several tables of the file have, checked alike."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from provisiond.settings.addresses import parse_bind


def _socket_address(text: str) -> str:
    parse_bind(text)
    return text


Bind = Annotated[str, AfterValidator(_socket_address)]
"""HOST:PORT, to listen on."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Safe in a log line, a label of a metric and a flag."""


def with_key_beside_certificate(table: Any) -> Any:
    """A table as it was read; one that names a certificate and no key has the `.key` beside the certificate."""
    if isinstance(table, dict) and isinstance(table.get("cert_file"), str) and "key_file" not in table:
        return {**table, "key_file": str(Path(table["cert_file"]).with_suffix(".key"))}
    return table


def refuse_twins(where: str, key: str, values: Iterable[str]) -> None:
    """See that no two tables have the same value.

    Raises:
        ValueError: two have, but for case.
    """
    seen: set[str] = set()
    for value in values:
        if value.lower() in seen:
            raise ValueError(f'two {where} have {key} = "{value}"; each needs its own')
        seen.add(value.lower())
