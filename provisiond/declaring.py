"""Between the configuration and what it declares: enrollments, and hubs."""

import json
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from provisiond.admin.declared import Declaration, Planned, plan, problems_of
from provisiond.admin.declared_hubs import Described, HubStep, compare_hubs
from provisiond.admin.use_cases import Admin
from provisiond.errors import AdminError, ConfigurationError
from provisiond.settings import Settings
from provisiond.settings.declared import declared_enrollments
from provisiond.settings.problems import join_problems
from provisiond.store.declared import DeclaredTables
from provisiond.store.sqlite import SqliteStore
from provisiond.system import SystemClock, SystemEntropy

ACTOR = "configuration"


def declares(settings: Settings) -> bool:
    """Whether a configuration has any enrollments."""
    return bool(settings.enrollments or settings.enrollment_groups)


def check_declared(settings: Settings) -> None:
    """Require declarations that could be had, as far as that can be told without the database.

    Raises:
        ConfigurationError: some cannot; says file and line of each.
    """
    now = SystemClock().now()
    problems = problems_of(_declarations(settings, now), hubs=settings.linked_hubs(), now=now)
    if problems:
        raise ConfigurationError(join_problems(problems))


async def plan_declared(
    settings: Settings, store: SqliteStore, *, actor: str = ACTOR, adopt: bool = False
) -> tuple[Planned, ...]:
    """What has to be done so that the enrollments are what the configuration declares.

    Raises:
        ConfigurationError: they cannot be had; says file and line.
        StoreError: the store cannot be read.
    """
    clock = SystemClock()
    admin = Admin(store=store, clock=clock, entropy=SystemEntropy(), hubs=settings.linked_hubs(), actor=actor)
    declarations = _declarations(settings, clock.now())
    try:
        return await plan(admin, DeclaredTables(store), declarations, adopt=adopt)
    except AdminError as error:
        raise ConfigurationError(join_problems(str(error).splitlines())) from error


def _declarations(settings: Settings, now: datetime) -> list[Declaration]:
    return [
        Declaration(enrollment=one.enrollment, where=one.where, sets_status=one.sets_status)
        for one in declared_enrollments(settings, now=now)
    ]


async def plan_hubs(settings: Settings, store: SqliteStore) -> Sequence[HubStep]:
    """What a start or SIGHUP would change in the hubs; nothing before a daemon has run, for then all of them are new.

    Raises:
        StoreError: the store cannot be read.
    """
    before = await DeclaredTables(store).get_hubs()
    return [] if before is None else compare_hubs(before, _described(settings))


async def record_hubs(settings: Settings, store: SqliteStore) -> None:
    """Remember the hubs that were taken over; raises StoreError."""
    await DeclaredTables(store).put_hubs(_described(settings))


def _described(settings: Settings) -> Described:
    """Of the options only a digest: should a secret be among them, it goes nowhere."""
    described = {}
    for hub in settings.hubs:
        options = json.dumps(hub.options, sort_keys=True, default=str)
        digest = f"sha256:{sha256(options.encode()).hexdigest()}" if hub.options else None
        described[hub.name] = {"type": hub.type, "host": hub.host, "weight": hub.weight, "options": digest}
    return described
