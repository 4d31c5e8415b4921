"""The wire protocol a device speaks, as an object: what `ProvisioningClient` does not know about topics and bodies."""

from collections.abc import Mapping
from typing import Protocol

from provisiond.device.errors import CredentialError
from provisiond.model import JSONValue, Message
from provisiond.protocols import dps_client
from provisiond.protocols.dps_client import ClientReply


class Dialect(Protocol):
    """Encodes requests and decodes replies; keeps no state."""

    def user_name(self, id_scope: str, registration_id: str, client_version: str) -> str:
        """User name of the CONNECT."""
        ...

    def response_filter(self, registration_id: str) -> str:
        """What to subscribe to before the first request."""
        ...

    def register(
        self, rid: str, registration_id: str, *, payload: JSONValue, members: Mapping[str, JSONValue]
    ) -> Message:
        """Ask to be assigned; `members` carry evidence."""
        ...

    def poll(self, rid: str, operation_id: str) -> Message:
        """Ask how an operation is doing."""
        ...

    def parse(self, message: Message) -> ClientReply:
        """Read a reply; raises MalformedReply for anything else."""
        ...


class DpsDialect:
    """Azure DPS over MQTT: the `$dps` topics."""

    def user_name(self, id_scope: str, registration_id: str, client_version: str) -> str:
        """See Dialect."""
        return dps_client.user_name(id_scope, registration_id, client_version=client_version)

    def response_filter(self, registration_id: str) -> str:
        """See Dialect: the same for every device, who hears only its own replies all the same."""
        del registration_id
        return dps_client.RESPONSE_FILTER

    def register(
        self, rid: str, registration_id: str, *, payload: JSONValue, members: Mapping[str, JSONValue]
    ) -> Message:
        """See Dialect."""
        body = dps_client.register_payload(registration_id, payload=payload, **members)
        return Message(topic=dps_client.register_topic(rid), payload=body)

    def poll(self, rid: str, operation_id: str) -> Message:
        """See Dialect: the body says nothing."""
        return Message(topic=dps_client.poll_topic(rid, operation_id), payload=b"")

    def parse(self, message: Message) -> ClientReply:
        """See Dialect."""
        return dps_client.parse_reply(message.topic, message.payload)


def find_dialect(name: str) -> Dialect:
    """The dialect called `dps` or `native`.

    Raises:
        CredentialError: this version does not speak it.
    """
    if name == "dps":
        return DpsDialect()
    raise CredentialError(f"this version does not speak the protocol {name!r} yet; use --protocol dps")
