"""What a device asks."""

from dataclasses import dataclass

from provisiond.model.challenge import Answer, IssuedChallenge
from provisiond.model.connection import Role
from provisiond.model.evidence import Evidence
from provisiond.model.json_value import JSONValue
from provisiond.model.registration_id import RegistrationId


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest:
    """A device asks to be assigned.

    Args:
        payload: its custom payload, any JSON or None.
        protocol: whose topics it asks on.
        predates_reprovisioning: it speaks a version of the protocol that knows of no reprovisioning policies: it stays
            at its hub, unless its enrollment has a policy of its own.
        octets: the message's payload, as it was published.
        answer: its answer to a challenge, or None for a first request.
        issued: the challenge it answers, taken out of the store; None when there was none.
    """

    claimed_id: RegistrationId
    evidence: Evidence
    payload: JSONValue = None
    protocol: Role = Role.DPS
    predates_reprovisioning: bool = False
    octets: bytes = b""
    answer: Answer | None = None
    issued: IssuedChallenge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequest:
    """A device asks how its operation is doing, on the topics of `protocol`."""

    claimed_id: RegistrationId
    evidence: Evidence
    operation_id: str
    protocol: Role = Role.DPS


Request = RegisterRequest | PollRequest
