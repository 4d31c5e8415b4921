"""The one gatekeeper that the broker knows: it sends every connection to the use case of its role."""

from collections.abc import Mapping

from provisiond.model import ConnectAttempt, Connection, Message, Role
from provisiond.ports import Gatekeeper
from provisiond.protocols.iothub import is_hub_user_name
from provisiond.protocols.operator import USER_NAME


class Front:
    """`ports.Gatekeeper` over three others; a connection's role is told by its user name.

    Args:
        provisioning: for devices that want to be assigned, and for whoever asks for nothing that is known.
        hub: for devices that were assigned here.
        operators: for operators and local consumers.
    """

    def __init__(self, *, provisioning: Gatekeeper, hub: Gatekeeper, operators: Gatekeeper) -> None:
        self._provisioning = provisioning
        self._by_role = {Role.IOTHUB: hub, Role.OPERATOR: operators}

    async def admit(self, attempt: ConnectAttempt) -> Connection:
        """Have a CONNECT judged; see `ports.Gatekeeper`.

        Raises:
            ConnectRefused: with the CONNACK return code.
        """
        if attempt.username == USER_NAME:
            return await self._by_role[Role.OPERATOR].admit(attempt)
        if is_hub_user_name(attempt.username):
            return await self._by_role[Role.IOTHUB].admit(attempt)
        return await self._provisioning.admit(attempt)

    async def handle(self, connection: Connection, message: Message) -> Message | None:
        """See `ports.Gatekeeper`."""
        return await self._of(connection).handle(connection, message)

    async def subscriptions_changed(self, connection: Connection, granted: Mapping[str, int]) -> None:
        """See `ports.Gatekeeper`."""
        await self._of(connection).subscriptions_changed(connection, granted)

    def has_outstanding_operation(self, connection: Connection) -> bool:
        """See `ports.Gatekeeper`."""
        return self._of(connection).has_outstanding_operation(connection)

    async def closed(self, connection: Connection) -> None:
        """See `ports.Gatekeeper`."""
        await self._of(connection).closed(connection)

    def _of(self, connection: Connection) -> Gatekeeper:
        return self._by_role.get(connection.role, self._provisioning)
