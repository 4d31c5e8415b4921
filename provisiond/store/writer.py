"""One group of writes, one transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provisiond.errors import AdminError, StoreError, VersionConflict
from provisiond.model import Retirement
from provisiond.store import audit, enrollments, hubs, registrations, rows
from provisiond.store.connection import is_environmental, transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionItem:
    """A decision's writes, encoded.

    Args:
        identity: hub and device id that the registration has with this write.
        made_at: as in `Write`.
    """

    registration: rows.RegistrationRow | None
    expected_version: int
    audit: rows.AuditRow | None
    guard: rows.EnrollmentGuard | None = None
    identity: tuple[str, str] | None = None
    retire: Retirement | None = None
    made_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationItem:
    """Any other change. `apply` changes nothing when it raises AdminError or StoreError; its result is the caller's."""

    apply: Callable[[sqlite3.Connection], Any]
    audit: rows.AuditRow | None = None


WriteItem = DecisionItem | MutationItem


def write_group(
    connection: sqlite3.Connection, items: Sequence[WriteItem], *, written: Callable[[], None] = lambda: None
) -> list[Any]:
    """Store the group in one transaction; results and exceptions in the order of the items.

    An item that conflicts leaves nothing behind, its audit row included, and does not touch the others. Should a
    statement refuse one item's values, each item is done in a transaction of its own, so that it fails alone.
    A sqlite3.Error among the results means that nothing of its item was acknowledged or may be relied upon.

    Args:
        connection: of the writer, in no transaction.
        items: one or more.
        written: called when all that is left to do is to wait for the disk.
    """
    try:
        with transaction(connection):
            results = _apply(connection, items)
            written()
            return results
    except (sqlite3.Error, OverflowError) as error:  # OverflowError: an integer beyond 64 bits
        if len(items) == 1 or is_environmental(error):
            return [error] * len(items)
    return [result for item in items for result in write_group(connection, [item])]


def _apply(connection: sqlite3.Connection, items: Sequence[WriteItem]) -> list[Any]:
    results: list[Any] = [None] * len(items)
    trail: list[rows.AuditRow] = []
    decisions: list[tuple[int, DecisionItem]] = []
    for position, item in enumerate(items):
        if isinstance(item, DecisionItem):
            decisions.append((position, item))
            continue
        try:
            results[position] = item.apply(connection)
        except (AdminError, StoreError) as error:
            results[position] = error
        else:
            if item.audit is not None:
                trail.append(item.audit)
    trail += _decide(connection, decisions, results)
    audit.append(connection, trail)
    return results


def _decide(
    connection: sqlite3.Connection, decisions: Sequence[tuple[int, DecisionItem]], results: list[Any]
) -> list[rows.AuditRow]:
    """Store the decisions whose versions and guards are right.

    Within a group, too, the first write of a version wins.
    """
    keys = {item.registration.key for _, item in decisions if item.registration is not None}
    versions = registrations.versions(connection, keys) if keys else {}
    guards = {item.guard for _, item in decisions if item.guard is not None}
    unchanged = enrollments.unchanged(connection, guards) if guards else set()
    owners = _owners(connection, decisions)
    winners: list[DecisionItem] = []
    for position, item in decisions:
        row = item.registration
        if item.guard is not None and item.guard not in unchanged:
            results[position] = VersionConflict(f"enrollment {item.guard.key!r} has changed since it was read")
            continue
        if row is not None:
            stored = versions.get(row.key, 0)
            if stored != item.expected_version:
                results[position] = VersionConflict(
                    f"registration {row.key!r} is at version {stored}, not {item.expected_version}"
                )
                continue
            # One TPM is one device: two ids that claim one endorsement key at once must not both have it.
            if row.endorsement_key_hash and owners.setdefault(row.endorsement_key_hash, row.key) != row.key:
                results[position] = VersionConflict(f"the endorsement key of {row.key!r} was registered meanwhile")
                continue
            versions[row.key] = row.version
        winners.append(item)
    _store(connection, winners)
    return [item.audit for item in winners if item.audit is not None]


def _store(connection: sqlite3.Connection, items: Sequence[DecisionItem]) -> None:
    records = {item.registration.key: item.registration for item in items if item.registration is not None}
    if records:
        registrations.store(connection, records.values())
    identities = {item.identity for item in items if item.identity is not None}
    if identities:
        hubs.void_retirements(connection, identities)
    retirements = [item.retire for item in items if item.retire is not None]
    if retirements:
        hubs.put_retirements(connection, retirements)
    for item in items:
        if item.made_at is not None and item.identity is not None and item.registration is not None:
            hubs.restart_grace(connection, item.identity[0], item.registration.key, item.made_at)


def _owners(connection: sqlite3.Connection, decisions: Sequence[tuple[int, DecisionItem]]) -> dict[str, str]:
    hashes = {item.registration.endorsement_key_hash for _, item in decisions if item.registration is not None}
    hashes.discard(None)
    return registrations.endorsement_key_owners(connection, hashes) if hashes else {}
