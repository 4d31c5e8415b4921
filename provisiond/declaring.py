"""Between the configuration and the enrollments that it declares."""

from provisiond.admin.declared import Declaration, Planned, plan
from provisiond.admin.use_cases import Admin
from provisiond.errors import AdminError, ConfigurationError
from provisiond.settings import Settings
from provisiond.settings.declared import declared_enrollments
from provisiond.store.declared import DeclaredTables
from provisiond.store.sqlite import SqliteStore
from provisiond.system import SystemClock, SystemEntropy

ACTOR = "configuration"


def declares(settings: Settings) -> bool:
    """Whether a configuration has any enrollments."""
    return bool(settings.enrollments or settings.enrollment_groups)


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
    declarations = [
        Declaration(enrollment=one.enrollment, where=one.where, sets_status=one.sets_status)
        for one in declared_enrollments(settings, now=clock.now())
    ]
    try:
        return await plan(admin, DeclaredTables(store), declarations, adopt=adopt)
    except AdminError as error:
        raise ConfigurationError(str(error)) from error
