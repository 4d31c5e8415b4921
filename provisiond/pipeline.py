"""One message, one direction: parse, read facts, decide, commit, reply. And one CONNECT: admit."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from provisiond.errors import (
    AttestationError,
    ConnectRefused,
    DeviceFault,
    PreconditionFailed,
    ServerFault,
    Throttled,
    VersionConflict,
)
from provisiond.model import (
    ConnectAttempt,
    Connection,
    CustomAllocation,
    Decision,
    Evidence,
    Facts,
    IssuedChallenge,
    Message,
    Outcome,
    PollRequest,
    Possession,
    Registration,
    RegistrationStatus,
    Request,
    Role,
    TpmEvidence,
    Trace,
)
from provisiond.ports import (
    Clock,
    CustomAllocator,
    DecisionStore,
    Entropy,
    HubDirectory,
    Observer,
    Outbox,
    PendingLimits,
    Write,
)
from provisiond.protocols import dps, native
from provisiond.protocols.codecs import CODECS
from provisiond.protocols.hub_credential import seal_hub_key
from provisiond.registration.challenge import decode_issued, encode_issued
from provisiond.registration.challenge_ledger import ChallengeLedger, ChallengeLimits
from provisiond.registration.context import uuid_text
from provisiond.registration.decide import Context, RegistrationPolicy, decide_poll, decide_register, refuse
from provisiond.registration.questions import facts_of, facts_query
from provisiond.registration.throttle import RequestLimits, Standing, Throttle, ThrottleKey, address_group

_COMMIT_ATTEMPTS: Final = 8
"""How often a decision is made again because somebody else committed first; one winner a round, so 8 is plenty."""

_OPERATION_TTL_S: Final = 600.0
"""How long a 202 that nobody polls keeps its connection from being closed as idle."""


class ReplyMode:
    """`[registration] reply`: whether `assigned` may be a device's first answer."""

    AUTO: Final = "auto"
    POLL: Final = "poll"
    IMMEDIATE: Final = "immediate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePolicy:
    """What the pipeline takes from the configuration; replaced whole at a reload."""

    registration: RegistrationPolicy
    reply: str = ReplyMode.AUTO
    pending: PendingLimits = field(default_factory=PendingLimits)
    requests: RequestLimits = field(default_factory=RequestLimits)
    challenges: ChallengeLimits = field(default_factory=ChallengeLimits)

    @property
    def id_scope(self) -> str:
        """The id scope of this service."""
        return self.registration.attestation.id_scope


class Pipeline:
    """The use case behind the broker's edge (`ports.Gatekeeper`)."""

    def __init__(
        self,
        *,
        store: DecisionStore,
        hubs: HubDirectory,
        clock: Clock,
        entropy: Entropy,
        observer: Observer,
        policy: ServicePolicy,
        outbox: Outbox | None = None,
        allocator: CustomAllocator | None = None,
        time_stage: Callable[[str, float], None] | None = None,
    ) -> None:
        self.policy = policy
        self._time_stage = time_stage
        self._outbox = outbox
        self._allocator = allocator
        self._store = store
        self._hubs = hubs
        self._clock = clock
        self._entropy = entropy
        self._observer = observer
        # A challenge of an earlier run is nobody's: this run's connections have other names.
        self._run_id = entropy.token_bytes(8).hex()
        # One entry a connection at the most in each: `closed` removes it.
        self._outstanding_until: dict[str, float] = {}
        self._proved: dict[str, TpmEvidence] = {}
        self._throttle = Throttle()
        self._challenges = ChallengeLedger()

    async def admit(self, attempt: ConnectAttempt) -> Connection:
        """Judge a CONNECT by its consistency; see `protocols.dps.admit`.

        Raises:
            ConnectRefused: with the CONNACK return code.
        """
        try:
            return self._admit(attempt)
        except ConnectRefused as error:
            self._observer.connect_refused(attempt, error)
            raise

    async def handle(self, connection: Connection, message: Message) -> Message | None:
        """Answer a PUBLISH: whatever it holds, exactly one reply, and nothing said that is not on disk.

        Returns:
            The reply; None when the topic names nowhere to send one.
        """
        codec = CODECS[connection.role]
        started = self._clock.monotonic()
        context = self._context(connection)
        event = "request"  # until it is known which
        key = ThrottleKey.of(connection.claimed_id.key, connection.remote_address)
        limits, is_in, overdue = self.policy.requests, False, None
        try:
            with self._throttle.admitted(key, connection.connection_id, limits=limits, now_s=started) as overdue:
                is_in = True
                request = codec.parse(connection, message)
                event = _event_of(request)
                decision = await self._decide(await self._recall(request, connection, context), context, overdue)
        except DeviceFault as fault:
            decision = await self._refuse(overdue or fault, connection, event, context)
        except ServerFault as fault:
            decision = self._fail(fault, connection, event, context)
        except Exception as error:  # noqa: BLE001 - a bug of ours must cost one device one answer, never the daemon
            decision = self._fail(error, connection, event, context)
        self._track(connection, decision)
        if is_in:
            self._note(connection, key, decision)
        self._observer.decided(connection, decision, event=event, elapsed_s=self._clock.monotonic() - started)
        return codec.encode(decision.reply, connection, message)

    async def subscriptions_changed(self, connection: Connection, granted: Mapping[str, int]) -> None:
        """Nothing: who provisions hears its replies whether it subscribed or not."""

    def has_outstanding_operation(self, connection: Connection) -> bool:
        """Whether the device was told to poll and has not heard the end yet."""
        return self._clock.monotonic() < self._outstanding_until.get(connection.connection_id, 0.0)

    async def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._outstanding_until.pop(connection.connection_id, None)
        self._proved.pop(connection.connection_id, None)
        self._throttle.closed(connection.connection_id)

    def _admit(self, attempt: ConnectAttempt) -> Connection:
        if dps.is_provisioning_user_name(attempt.username):
            return dps.admit(attempt, id_scope=self.policy.id_scope)
        if native.is_native_user_name(attempt.username, attempt.client_id):
            return native.admit(attempt)
        raise ConnectRefused(f"user name {(attempt.username or '')[:200]!r} asks for no role of this service")

    async def _recall(self, request: Request, connection: Connection, context: Context) -> Request:
        """Add what earlier messages have established: the challenge that is answered, the TPM that was proved."""
        if isinstance(request, PollRequest):
            proved = self._proved.get(connection.connection_id)
            if proved is None:
                return request
            return replace(request, evidence=Evidence(tpm=proved, possession=Possession.ANSWERED))
        if request.answer is None:
            return request
        # Out of the store before anything is checked: right or wrong, it serves this one try.
        key = _challenge_key(request.protocol, context.connection_id, request.answer.challenge_id)
        self._challenges.taken(key)
        stored = await self._store.take_challenge(key)
        issued = None if stored is None else decode_issued(stored.challenge)
        return CODECS[connection.role].recall(request, issued)

    async def _decide(self, request: Request, context: Context, overdue: Throttled | None) -> Decision:
        answer: CustomAllocation | None = None
        for _ in range(_COMMIT_ATTEMPTS):
            facts = await self._facts(request)
            if answer is not None:
                facts = replace(facts, custom_allocation=answer)
            decision = self._sealed(self._judge(request, facts, context), request)
            if decision.outcome is Outcome.REFUSED:
                if overdue is not None:
                    raise overdue
                decision = self._worth_a_record(decision, context)
            if decision.allocation is not None and self._allocator is not None:
                answer = await self._allocator.allocate(decision.allocation)
                continue  # what the answer is worth is decided by what is true now
            if decision.challenge is not None:
                await self._keep_challenge(decision.challenge, context)
                return decision
            if await self._settle(decision, facts.registration):
                return decision
        raise PreconditionFailed(f"{request.claimed_id} was registered {_COMMIT_ATTEMPTS} times at once")

    async def _settle(self, decision: Decision, before: Registration | None) -> bool:
        """Commit; False when somebody else was first. The device counts at its hub meanwhile, for those beside it."""
        after = decision.registration
        if after is None:
            return await self._committed(decision)
        was = before.hub if before else None
        self._hubs.place(before=was, after=after.hub)
        settled = False
        try:
            settled = await self._committed(decision)
        finally:
            if not settled:
                self._hubs.place(before=after.hub, after=was)
        if settled and self._outbox is not None and after.hub and after.status is RegistrationStatus.ASSIGNING:
            self._outbox.wake(after.hub)
        return settled

    async def _committed(self, decision: Decision) -> bool:
        try:
            await self._commit(decision)
        except VersionConflict:
            return False
        return True

    def _judge(self, request: Request, facts: Facts, context: Context) -> Decision:
        policy = self.policy.registration
        with self._timed("decide"):
            if isinstance(request, PollRequest):
                return decide_poll(request, facts, policy=policy, context=context)
            return decide_register(request, facts, policy=policy, context=context)

    def _sealed(self, decision: Decision, request: Request) -> Decision:
        """Add what only the device may read, before anything is promised; raises UnsealableKey."""
        shown = decision.reply.registration
        if request.protocol is not Role.NATIVE or shown is None:
            return decision
        sealed = seal_hub_key(shown, id_scope=self.policy.id_scope, claimed_id=request.claimed_id)
        return (
            decision if sealed is None else replace(decision, reply=replace(decision.reply, sealed_credential=sealed))
        )

    def _timed(self, stage: str) -> "_Timed":
        return _Timed(stage, self._clock, self._time_stage)

    async def _facts(self, request: Request) -> Facts:
        with self._timed("facts"):
            stored = await self._store.facts(facts_query(request))
        return facts_of(stored, self._hubs.snapshot())

    async def _commit(self, decision: Decision) -> None:
        if decision.registration is None and decision.audit is None:
            return
        write = Write(
            registration=decision.registration,
            expected_version=decision.expected_version,
            audit=decision.audit,
            guard=decision.guard,
            retire=decision.retire,
        )
        with self._timed("commit"):
            await self._store.commit(write)
        if decision.pending is not None:
            await self._store.put_pending(decision.pending, limits=self.policy.pending)

    async def _keep_challenge(self, issued: IssuedChallenge, context: Context) -> None:
        """Keep a challenge before anybody hears of it; raises Throttled when there are too many."""
        now_s, address = self._clock.monotonic(), address_group(context.actor)
        if self._challenges.is_stale(now_s):
            self._challenges.recount(await self._store.purge_challenges(context.now), now_s)
        limits = self.policy.challenges
        self._challenges.check(address=address, connection_id=issued.connection_id, limits=limits, now_s=now_s)
        key = _challenge_key(issued.protocol, issued.connection_id, issued.challenge.challenge_id)
        expires_at = issued.challenge.expires_at
        await self._store.put_challenge(key=key, challenge=encode_issued(issued), expires_at=expires_at)
        expires_at_s = now_s + (expires_at - context.now).total_seconds()
        self._challenges.issued(key, address=address, connection_id=issued.connection_id, expires_at_s=expires_at_s)

    async def _refuse(self, fault: DeviceFault, connection: Connection, event: str, context: Context) -> Decision:
        decision = refuse(fault, claimed_id=connection.claimed_id, event=event, context=context, trace=Trace())
        if isinstance(fault, Throttled) and fault.repeated:
            # One row tells the operator of a flood; a row for each message would be what the flood wants.
            return replace(decision, audit=None)
        decision = self._worth_a_record(decision, context)
        try:
            await self._commit(decision)
        except ServerFault as error:
            return self._fail(error, connection, event, context)
        return decision

    def _worth_a_record(self, decision: Decision, context: Context) -> Decision:
        address, now_s = address_group(context.actor), self._clock.monotonic()
        return decision if self._throttle.may_record_refusal(address, now_s=now_s) else replace(decision, audit=None)

    def _fail(self, error: Exception, connection: Connection, event: str, context: Context) -> Decision:
        self._observer.failed(connection, error, tracking_id=context.tracking_id)
        fault = error if isinstance(error, ServerFault) else ServerFault(repr(error))
        return refuse(fault, claimed_id=connection.claimed_id, event=event, context=context, trace=Trace())

    def _track(self, connection: Connection, decision: Decision) -> None:
        if not connection.connection_id:
            return  # behind a broker of somebody else's: these are not one device's
        if decision.proved is not None:
            self._proved[connection.connection_id] = decision.proved
        if decision.reply.status == 202:
            self._outstanding_until[connection.connection_id] = self._clock.monotonic() + _OPERATION_TTL_S
        else:
            self._outstanding_until.pop(connection.connection_id, None)

    def _note(self, connection: Connection, key: ThrottleKey, decision: Decision) -> None:
        """Count what came of a request; a fault of ours says nothing of the device."""
        error = decision.reply.error
        if decision.reply.status >= 500:
            return
        if decision.outcome is Outcome.CHALLENGED:
            result = Standing.CHALLENGED
        else:
            result = Standing.PROVED if error is None else Standing.REFUSED
        self._throttle.answered(
            key,
            connection.connection_id,
            result,
            is_wrong_proof=error is not None and error.code == AttestationError.code,
            limits=self.policy.requests,
            now_s=self._clock.monotonic(),
        )

    def _context(self, connection: Connection) -> Context:
        operation = self._entropy.token_bytes(24)
        random = self._entropy.token_bytes(48)
        return Context(
            now=self._clock.now(),
            immediate=self._is_immediate(connection),
            tracking_id=uuid_text(random[:16]),
            operation_id=f"5.{operation[:8].hex()}.{uuid_text(operation[8:])}",
            etag=b64encode(f'"{uuid_text(random[16:32])}"'.encode()).decode(),
            challenge_id=random[32:].hex(),
            connection_id=f"{self._run_id}-{connection.connection_id}" if connection.connection_id else "",
            entropy=self._entropy,
            actor=connection.remote_address,
        )

    def _is_immediate(self, connection: Connection) -> bool:
        match self.policy.reply:
            case ReplyMode.IMMEDIATE:
                return True
            case ReplyMode.POLL:
                return False
            case _:
                native_device = connection.role is Role.NATIVE
                return native_device or dps.takes_immediate_assignment(connection.client_version)


class _Timed:
    """Tells the metrics how long a stage took, however it ended."""

    __slots__ = ("_clock", "_stage", "_started", "_tell")

    def __init__(self, stage: str, clock: Clock, tell: Callable[[str, float], None] | None) -> None:
        self._stage = stage
        self._clock = clock
        self._tell = tell

    def __enter__(self) -> None:
        self._started = self._clock.monotonic()

    def __exit__(self, *_: object) -> None:
        if self._tell is not None:
            self._tell(self._stage, self._clock.monotonic() - self._started)


def _challenge_key(protocol: Role, connection_id: str, challenge_id: str | None) -> str:
    """Answers on `$dps` topics do not name their challenge: there it is the connection's one.

    The name spaces are apart, so that naming a challenge never voids one of another protocol.
    """
    return f"dps/{connection_id}" if protocol is Role.DPS else f"native/{challenge_id}"


def _event_of(request: Request) -> str:
    if isinstance(request, PollRequest):
        return "poll"
    return "register" if request.answer is None else "answer"
