"""The nouns: frozen values that the rooms hand to each other.

Times are aware UTC `datetime`s. Keys, certificates and TPM structures are `bytes` (DER, TPM2B); text forms are made
at the edges. What has not been verified says so in its name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NewType

from provisiond.errors import MalformedRequest

JSONValue = Any
"""A parsed JSON value."""

HubName = NewType("HubName", str)

REGISTRATION_ID_MAX_LENGTH: Final = 128
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


# --- trace -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a decision's trace.

    Args:
        name: what was looked at, a stable slug such as `certificate-validity`.
        passed: whether it went the device's way.
        finding: what was found, for the operator.
        clause: where the rule comes from, such as `RFC 5280 6.1.3`; may be empty.
    """

    name: str
    passed: bool
    finding: str
    clause: str = ""


class Trace:
    """Collects the checks of one decision. Write-only for the checkers: nothing may be decided from it."""

    __slots__ = ("_checks",)

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def passed(self, name: str, finding: str, clause: str = "") -> None:
        """Record a check that went the device's way."""
        self._checks.append(Check(name, True, finding, clause))

    def failed(self, name: str, finding: str, clause: str = "") -> None:
        """Record a check that did not."""
        self._checks.append(Check(name, False, finding, clause))

    def ends_with_failure(self, name: str, finding: str) -> bool:
        """Whether this very failure was the last thing recorded; nobody wants to read it twice."""
        last = self._checks[-1] if self._checks else None
        return last is not None and not last.passed and (last.name, last.finding) == (name, finding)

    def snapshot(self) -> tuple[Check, ...]:
        """The checks so far, in order."""
        return tuple(self._checks)


# --- enrollments -----------------------------------------------------------------------------------------------------


class AttestationType(StrEnum):
    """How a device proves who it is."""

    X509 = "x509"
    SYMMETRIC_KEY = "symmetricKey"
    TPM = "tpm"


class EnrollmentKind(StrEnum):
    """One device, or every device that a shared trust material vouches for."""

    INDIVIDUAL = "individual"
    GROUP = "group"


class ProvisioningStatus(StrEnum):
    """Whether devices of an enrollment may be assigned."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class AllocationPolicy(StrEnum):
    """How a hub is chosen among the eligible ones."""

    HASHED = "hashed"
    GEO_LATENCY = "geoLatency"
    STATIC = "static"
    CUSTOM = "custom"
    LEAST_LOADED = "leastLoaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReprovisionPolicy:
    """What happens when an assigned device registers again (Azure `reprovisionPolicy`)."""

    update_hub_assignment: bool = True
    migrate_device_data: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Material:
    """Trust material of an X.509 enrollment.

    `client`: the device's own certificate (individual enrollment, pinned). `signing`: a CA certificate, root or
    intermediate (group).
    """

    primary_der: bytes
    secondary_der: bytes | None = None

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """The one or two certificates, DER."""
        return (self.primary_der,) if self.secondary_der is None else (self.primary_der, self.secondary_der)


@dataclass(frozen=True, slots=True, kw_only=True)
class SymmetricKeyMaterial:
    """Trust material of a symmetric-key enrollment: two keys of 16 to 64 bytes; for a group, the keys devices' keys
    are derived from.
    """

    primary_key: bytes = field(repr=False)
    secondary_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmMaterial:
    """Trust material of a TPM enrollment.

    Individual: the exact endorsement key (TPM2B_PUBLIC), and the storage root key once it has been seen.
    Group: neither; trust comes from the EK certificate and the configured manufacturer CAs. `allowed_ids` then
    lists the registration ids (keys) that may be claimed; empty means that the id must be the one derived from the EK.
    `pcr_policy` is the JSON of the enrollment's PCR policy, or None.
    """

    endorsement_key: bytes | None = None
    storage_root_key: bytes | None = None
    allowed_ids: tuple[str, ...] = ()
    pcr_policy: Mapping[str, Any] | None = None


AttestationMaterial = X509Material | SymmetricKeyMaterial | TpmMaterial


def attestation_type_of(material: AttestationMaterial) -> AttestationType:
    """The mechanism that this material belongs to."""
    match material:
        case X509Material():
            return AttestationType.X509
        case SymmetricKeyMaterial():
            return AttestationType.SYMMETRIC_KEY
        case TpmMaterial():
            return AttestationType.TPM


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialTwin:
    """Tags and desired properties a device's twin starts with at its hub."""

    tags: Mapping[str, Any] = field(default_factory=dict)
    desired: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """An individual enrollment or an enrollment group (Azure DPS service API nouns).

    Args:
        kind: individual or group.
        id: registration id or group id, as the operator spelt it. `key` is what it is compared under.
        device_id: device id at the hub, when it differs from the registration id (individual only).
        allocation_policy: None falls back to the configured default.
        iot_hubs: names or hosts of the hubs to choose among; empty means all.
        custom_allocation: `{"webhookUrl": …, "apiVersion": …}` for the custom policy.
        etag: opaque, changes at every update; includes its quotes.
        origin: `operator` or `config` (declared in the configuration file).
    """

    kind: EnrollmentKind
    id: str
    attestation: AttestationMaterial
    provisioning_status: ProvisioningStatus = ProvisioningStatus.ENABLED
    device_id: str | None = None
    allocation_policy: AllocationPolicy | None = None
    iot_hubs: tuple[str, ...] = ()
    custom_allocation: Mapping[str, Any] | None = None
    reprovision_policy: ReprovisionPolicy | None = None
    initial_twin: InitialTwin | None = None
    iot_edge: bool = False
    device_information: Mapping[str, Any] | None = None
    origin: str = "operator"
    etag: str = ""
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> str:
        """The spelling the record is stored and compared under."""
        return self.id.lower()

    @property
    def enabled(self) -> bool:
        """Whether its devices may be assigned."""
        return self.provisioning_status is ProvisioningStatus.ENABLED

    @property
    def attestation_type(self) -> AttestationType:
        """The mechanism its devices prove themselves with."""
        return attestation_type_of(self.attestation)


# --- registrations ---------------------------------------------------------------------------------------------------


class RegistrationStatus(StrEnum):
    """Azure DPS `RegistrationStatus`."""

    UNASSIGNED = "unassigned"
    ASSIGNING = "assigning"
    ASSIGNED = "assigned"
    FAILED = "failed"
    DISABLED = "disabled"


class Substatus(StrEnum):
    """Azure DPS `RegistrationSubstatus`: how an assigned device came to its hub."""

    INITIAL_ASSIGNMENT = "initialAssignment"
    DEVICE_DATA_MIGRATED = "deviceDataMigrated"
    DEVICE_DATA_RESET = "deviceDataReset"
    REPROVISIONED_TO_INITIAL_ASSIGNMENT = "reprovisionedToInitialAssignment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The record of one registration id: at most one per id, on at most one hub.

    Args:
        registration_id: as the device spelt it when it was first seen.
        operation_id: the newest operation; unguessable; polls name it.
        version: 1 at creation, +1 at every commit; the optimistic lock.
        hub: name of the hub in the configuration; `assigned_host` is what the device hears.
        enrollment_kind, enrollment_id: what let the device in, last time.
        endorsement_key_hash: SHA-256 of the TPM2B_PUBLIC EK, for TPM registrations.
        endorsement_key, storage_root_key: TPM2B_PUBLIC, for TPM registrations; frozen at the first success.
        hub_key: what a TPM device signs with at its hub, which never leaves us but sealed to that TPM; for a device
            with a symmetric key, the one that it has proved, where the hub has to be told what follows from it.
        certificate_der: the device's own certificate, for X.509; its hub knows it by this one.
        initial_twin: what a custom allocation wants the twin to start with; it goes before the enrollment's.
        payload: what a custom allocation returned for the device, any JSON or None.
    """

    registration_id: str
    status: RegistrationStatus
    substatus: Substatus | None = None
    operation_id: str
    version: int
    hub: str | None = None
    assigned_host: str | None = None
    device_id: str
    enrollment_kind: EnrollmentKind
    enrollment_id: str
    attestation_type: AttestationType
    endorsement_key_hash: bytes | None = None
    endorsement_key: bytes | None = None
    storage_root_key: bytes | None = None
    hub_key: bytes | None = field(default=None, repr=False)
    certificate_der: bytes | None = field(default=None, repr=False)
    initial_twin: InitialTwin | None = None
    payload: JSONValue = None
    error_code: int | None = None
    error_message: str | None = None
    etag: str
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> str:
        """The spelling the record is stored and compared under."""
        return self.registration_id.lower()


class RetirementAction(StrEnum):
    """What becomes of an identity that a hub has no more use for."""

    DELETE = "delete"
    DISABLE = "disable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """An identity that is to go from a hub; at most one a hub and device.

    Args:
        hub: name of the hub.
        device_id: at that hub.
        registration_id: whose identity it is.
        due_at: not before.
        grace_s: seconds that a device which has moved may take to be seen at its new hub, from when it was made there;
            `due_at` is their end. 0: nobody is waited for.
        reason: for the operator.
    """

    hub: str
    device_id: str
    registration_id: str
    action: RetirementAction = RetirementAction.DELETE
    due_at: datetime
    grace_s: int = 0
    reason: str = ""


# --- devices at the embedded hub -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTwin:
    """What a hub and its device know of each other (Azure IoT Hub device twins).

    Args:
        device_id: at the hub.
        tags: for operators; the device never sees them.
        desired: what operators want of the device.
        reported: what the device says it is.
        version: +1 at every change; the etag is made of it.
        desired_version, reported_version: +1 at every change of that part.
        updated_at: aware UTC.
    """

    device_id: str
    tags: Mapping[str, JSONValue] = field(default_factory=dict)
    desired: Mapping[str, JSONValue] = field(default_factory=dict)
    reported: Mapping[str, JSONValue] = field(default_factory=dict)
    version: int = 1
    desired_version: int = 1
    reported_version: int = 1
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePresence:
    """Whether a device is connected to the embedded hub, and when it was last heard.

    Args:
        device_key: lower-case device id.
        changed_at: when it connected, or went; aware UTC, whole seconds.
        last_seen_at: when it last sent anything; aware UTC, whole seconds.
    """

    device_key: str
    connected: bool
    changed_at: datetime
    last_seen_at: datetime
    remote_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudMessage:
    """A cloud-to-device message.

    Args:
        message_id: 1 to 128 characters.
        payload: any octets.
        properties: the message's own properties, as text; `$.` names are the system's.
        expires_at: not delivered from then on; aware UTC.
        sequence: its place in the queue, 0 until it is there.
        deliveries: how often it was sent.
    """

    message_id: str
    payload: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime
    sequence: int = 0
    deliveries: int = 0


# --- one message -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectAttempt:
    """A CONNECT as it arrived, with what the transport knows. Nothing here is trusted.

    Args:
        connection_id: unique in this process, never reused.
        unverified_chain: DER certificates the TLS peer presented, leaf first. That the peer holds the leaf's key was
            proved in this connection's own handshake; nothing else about the chain was looked at.
    """

    connection_id: str
    listener: str
    remote_address: str
    tls: bool
    unverified_chain: tuple[bytes, ...] = ()
    client_id: str
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)


class Role(StrEnum):
    """What a connection is for; told by its user name."""

    DPS = "dps"
    NATIVE = "native"
    IOTHUB = "iothub"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An admitted connection. Immutable: what was presented in its handshake and CONNECT is its own for ever.

    Args:
        claimed_id: the id its CONNECT claims; proved only by `attestation`.
        sas_token: password of the CONNECT, when there was one.
        api_version, client_version: from the user name; empty when absent.
    """

    connection_id: str
    role: Role
    claimed_id: RegistrationId
    listener: str
    remote_address: str
    unverified_chain: tuple[bytes, ...] = ()
    sas_token: str | None = field(default=None, repr=False)
    api_version: str = ""
    client_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An MQTT application message. `qos` is 0 or 1; never retained."""

    topic: str
    payload: bytes
    qos: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmEvidence:
    """What a TPM device presents: TPM2B_PUBLIC endorsement and storage root key, and optionally EK certificates (DER,
    leaf first) and the TPM2B_PUBLIC of an attestation key (native protocol).
    """

    endorsement_key: bytes
    storage_root_key: bytes
    unverified_ek_chain: tuple[bytes, ...] = ()
    attestation_key: bytes | None = None


class Possession(StrEnum):
    """How the presenter of a certificate chain or a TPM's keys proved that it holds the private ones."""

    UNPROVED = "unproved"
    """Not at all yet: a challenge is due."""
    TLS = "tls"
    """In the handshake of its own connection."""
    ANSWERED = "answered"
    """By answering a challenge earlier on the same connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything a request brings to prove its claim; the enrollment decides which part counts.

    Args:
        unverified_chain: X.509 chain, DER, leaf first.
        sas_token: `SharedAccessSignature sr=…&sig=…&se=…`.
        claims_symmetric_key: a symmetric key will be proved by answering a challenge; nothing of it is presented.
        tpm: endorsement key and what goes with it.
        possession: how holding the private keys of the chain or of the TPM was proved.
    """

    unverified_chain: tuple[bytes, ...] = ()
    sas_token: str | None = field(default=None, repr=False)
    claims_symmetric_key: bool = False
    tpm: TpmEvidence | None = None
    possession: Possession = Possession.UNPROVED


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteEvidence:
    """A TPM2_Quote: TPMS_ATTEST, TPMT_SIGNATURE and the register values it covers, by bank and index."""

    attest: bytes
    signature: bytes
    pcr_values: Mapping[tuple[str, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A device's answer to a challenge; which field counts depends on the challenge.

    Args:
        challenge_id: of the challenge; None means the one outstanding on this connection.
        sas_token: signed with the key that only its TPM could take out of an `authenticationKey`.
        algorithm, signature: by the key of the device's certificate, over the transcript.
        mac: HMAC-SHA256 under the device's symmetric key, over the transcript.
        proof: HMAC-SHA256 under the secret that the TPM has released, over the transcript.
        quote: when the challenge asked for one.
    """

    challenge_id: str | None = None
    sas_token: str | None = field(default=None, repr=False)
    algorithm: str | None = None
    signature: bytes | None = None
    mac: bytes | None = None
    proof: bytes | None = None
    quote: QuoteEvidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What a device has to answer before it is believed, as it is told.

    Args:
        challenge_id, session_id: 1 to 128 printable ASCII characters; the answer covers both.
        attestation_type: how it has to be answered.
        nonce: 32 fresh octets.
        expires_at: an answer that comes later is refused.
        id_object, encrypted_secret: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, for a TPM; else empty.
        pcr_selection: registers that a quote must cover, bank and index; empty when none is asked for.
        authentication_key: the blob with the key to sign a SAS token with, on `$dps` topics; else empty.
    """

    challenge_id: str
    session_id: str
    attestation_type: AttestationType
    nonce: bytes
    expires_at: datetime
    id_object: bytes = b""
    encrypted_secret: bytes = b""
    pcr_selection: tuple[tuple[str, int], ...] = ()
    authentication_key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedChallenge:
    """A challenge as the service keeps it until it is answered: once, by whom it was given to.

    Args:
        challenge: as the device was told.
        registration_key: lower-case id it was issued to.
        connection_id: of the connection that asked; empty where connections are not ours to know.
        protocol: whose topics it was asked on.
        secret: what only the right TPM can release: the SAS key or the activated secret; else empty.
        request: the register message's payload, as it was published.
        keys_sha256: of the TPM's keys that were challenged (`tpm_claim.keys_digest`); empty for other mechanisms.
    """

    challenge: Challenge
    registration_key: str
    connection_id: str
    protocol: Role
    secret: bytes = field(default=b"", repr=False)
    request: bytes = b""
    keys_sha256: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest:
    """A device asks to be assigned.

    Args:
        payload: its custom payload, any JSON or None.
        protocol: whose topics it asks on.
        octets: the message's payload, as it was published.
        answer: its answer to a challenge, or None for a first request.
        issued: the challenge it answers, taken out of the store; None when there was none.
    """

    claimed_id: RegistrationId
    evidence: Evidence
    payload: JSONValue = None
    protocol: Role = Role.DPS
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Proof that the claimed identity is true for one enrollment. Only `attestation/` makes these.

    Args:
        registration_id: proved.
        enrollment: whose trust material proved it.
        credential: what proved it, in a few words for the trace (`primary certificate`, `secondary key`).
        certificate_der: the device's own certificate, for X.509.
        endorsement_key_hash: SHA-256 of the EK, for TPM.
        tpm: the TPM's keys, for TPM.
        device_key: the key the device signs with at its hub, for symmetric keys.
    """

    registration_id: RegistrationId
    enrollment: Enrollment
    attestation_type: AttestationType
    credential: str
    certificate_der: bytes | None = None
    endorsement_key_hash: bytes | None = None
    tpm: TpmEvidence | None = None
    device_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A hub as the decision sees it.

    Args:
        name: unique name in the configuration.
        host: what devices connect to.
        weight: share of new devices under `hashed`, 1 to 1000.
        type: connector, such as `embedded`; `immediate` hubs need no call before a device may be told about them.
        eligible: takes new devices: not draining.
        healthy: answered when it was last asked; one that does not is chosen only where no other is eligible.
        retry_after_s: when a device that is assigned to it now should ask again, whole seconds; None for the default.
        assigned_count: devices assigned now (for `leastLoaded`).
        latency_ms: smoothed round trip (for `geoLatency`), None when not measured.
    """

    name: str
    host: str
    type: str = "embedded"
    weight: int = 1
    eligible: bool = True
    healthy: bool = True
    retry_after_s: int | None = None
    immediate: bool = True
    assigned_count: int = 0
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubView:
    """What was seen of one hub.

    Args:
        healthy: it answers.
        latency_ms: smoothed round trip, None when not measured.
        retry_after_s: when a device that is assigned to it now should ask again, whole seconds; None for the default.
    """

    healthy: bool = True
    latency_ms: float | None = None
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRequest:
    """What a custom allocation is asked: which of these hubs shall this verified device get.

    Args:
        enrollment: that let it in, with the webhook.
        registration: its record, when it has one.
        hubs: the linked hubs it may get, by host.
        payload: what the device sent, any JSON or None.
    """

    enrollment: Enrollment
    registration_id: str
    attestation_type: AttestationType
    certificate_der: bytes | None = None
    endorsement_key: bytes | None = None
    registration: Registration | None = None
    hubs: tuple[Hub, ...] = ()
    payload: JSONValue = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAllocation:
    """What a custom allocation answered, for one state of one enrollment.

    Args:
        enrollment_etag: of the enrollment that it was asked about.
        host: the chosen hub's; empty when there is an error.
        error: why there is no answer, for the operator; empty when there is one.
        public_error: the same as the device may hear it.
    """

    enrollment_etag: str
    host: str = ""
    initial_twin: InitialTwin | None = None
    payload: JSONValue = None
    error: str = ""
    public_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything stored that a decision may look at, read in one transaction.

    Args:
        individual: the individual enrollment of the claimed id, if any.
        groups: the groups that could claim the request: CA groups whose certificate is or has signed one of the
            presented ones (by name), symmetric-key groups when a SAS token was presented, TPM groups when a TPM was.
        registration: the current record of the claimed id.
        endorsement_key_owner: lower-case id of the registration that has the presented endorsement key, if any.
        registered_group: the group that the registration says let it in, if it is still there; for polls that prove
            nothing.
        hubs: every linked hub.
        custom_allocation: what the webhook answered, when it was asked.
    """

    individual: Enrollment | None = None
    groups: tuple[Enrollment, ...] = ()
    registration: Registration | None = None
    endorsement_key_owner: str | None = None
    registered_group: Enrollment | None = None
    hubs: tuple[Hub, ...] = ()
    custom_allocation: CustomAllocation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """Azure DPS error body. `message` is coarse; the operator finds the reason under `tracking_id`."""

    code: int
    message: str
    tracking_id: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the device hears, before a protocol encodes it. Exactly one of `error`, `challenge`, `status_text` is set.

    Args:
        status: HTTP-like: 200, 202, 400, 401, 404, 409, 429, 500.
        registration: record to show whole, as `registrationState`; None to leave it out.
        registration_id: shows a `registrationState` of only the id and the status, when there is no record to show.
        retry_after_s: whole seconds, None to leave it out.
        challenge: with status 401.
        authentication_key: blob that carries a TPM device's hub key, or None.
        sealed_credential: what the device needs at its hub, sealed to the device (`protocols.sealing`), or None.
    """

    status: int
    operation_id: str = ""
    status_text: RegistrationStatus | None = None
    registration: Registration | None = None
    registration_id: str = ""
    error: ErrorBody | None = None
    retry_after_s: int | None = None
    challenge: Challenge | None = None
    authentication_key: bytes | None = None
    sealed_credential: Mapping[str, JSONValue] | None = None


class Outcome(StrEnum):
    """How a decision ended, for audit, metrics and the log."""

    ASSIGNED = "assigned"
    ASSIGNING = "assigning"
    REFUSED = "refused"
    DISABLED = "disabled"
    FAILED = "failed"
    CHALLENGED = "challenged"
    PENDING = "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One decision, for ever: who asked, what was decided, why.

    Args:
        tracking_id: UUID text; the device of a refusal hears it.
        event: `register`, `poll`, `enrollment.create`, ….
        code: error code of a refusal, else None.
        actor: remote address of a device, user name of an operator.
    """

    tracking_id: str
    at: datetime
    event: str
    registration_id: str
    outcome: str
    code: int | None = None
    reason: str = ""
    enrollment_kind: EnrollmentKind | None = None
    enrollment_id: str | None = None
    hub: str | None = None
    actor: str = ""
    trace: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDevice:
    """A device that nobody enrolled, waiting for an operator.

    Args:
        registration_id: as the device spells it.
        attestation_type: X.509 or TPM; a symmetric key cannot be looked at.
        evidence: its certificate (DER) or endorsement key (TPM2B_PUBLIC).
        proved: whether it has shown that it holds the key.
        first_seen_at, last_seen_at: aware UTC.
        remote_address: of the newest attempt, as its `tracking_id`.
    """

    registration_id: str
    attestation_type: AttestationType
    evidence: bytes
    proved: bool
    first_seen_at: datetime
    last_seen_at: datetime
    attempts: int = 1
    remote_address: str = ""
    tracking_id: str = ""
    rejected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from a request and the facts: what to write, what to say, and why.

    Args:
        registration: record to write, with its `version` already the new one; None when nothing changes.
        expected_version: version that was read, 0 when there was no record.
        audit: row to append, None for requests that decide nothing (a poll that only looks).
        challenge: to be kept, durably, before the reply goes out.
        proved: a TPM that has proved itself; its connection may poll.
        guard: the enrollment that let the device in; it must be unchanged when the decision is committed.
        retire: the identity at the hub that the device leaves.
        allocation: a custom allocation has to be asked first; then decide again with its answer among the facts.
        pending: an unknown device that is to wait for an operator.
    """

    reply: Reply
    outcome: Outcome
    registration: Registration | None = None
    expected_version: int = 0
    audit: AuditRecord | None = None
    challenge: IssuedChallenge | None = None
    proved: TpmEvidence | None = None
    guard: Enrollment | None = None
    retire: Retirement | None = None
    allocation: AllocationRequest | None = None
    pending: PendingDevice | None = None
