"""Values that several tables of the file have, checked alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from provisiond.settings.addresses import parse_bind
from provisiond.settings.location import KeyPath
from provisiond.settings.problems import Misplaced, dotted


def _socket_address(text: str) -> str:
    parse_bind(text)
    return text


Bind = Annotated[str, AfterValidator(_socket_address)]
"""HOST:PORT, to listen on."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Safe in a log line, a label of a metric and a flag."""


def with_key_beside_certificate(table: Any) -> Any:
    """A table as it was read; one that names a certificate and no key has the `.key` beside the certificate."""
    if (
        isinstance(table, dict)
        and isinstance(table.get("cert_file"), str)
        and table["cert_file"]
        and "key_file" not in table
    ):
        return {**table, "key_file": str(Path(table["cert_file"]).with_suffix(".key"))}
    return table


def refuse_twins(path: KeyPath, key: str, values: Sequence[str | None]) -> None:
    """See that no two tables of a list have the same value; None is nobody's.

    Args:
        path: of the list, from the table that is checked.
        key: of the value in each.
        values: one for each, in order.

    Raises:
        Misplaced: two have, but for case; says where the second one is.
    """
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value is None:
            continue
        if value.lower() in seen:
            where = (*path, index, key)
            raise Misplaced(f'two [[{dotted(path)}]] have {key} = "{value}"; each needs its own', where)
        seen.add(value.lower())
