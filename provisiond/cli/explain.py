"""`provisiond explain`: why a device was refused, or what would become of it now. Nothing is written."""

import asyncio
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.admin.assumed_evidence import Presented
from provisiond.admin.explanation import Explanation
from provisiond.admin.explanation import explain as decide_without_writing
from provisiond.admin.hubs import as_seen
from provisiond.admin.rules import check_id
from provisiond.cli.audit_records import advice, audit_to_json, check_to_json
from provisiond.cli.exit_codes import ExitCode
from provisiond.cli.explained_story import print_story
from provisiond.cli.output import Output, OutputFormat, note, print_record, resolve_format
from provisiond.cli.secret_files import read_bytes, read_certificates, read_tpm_public
from provisiond.cli.session import Config, command, has_database, load
from provisiond.errors import InvalidArgument, RecordNotFound
from provisiond.model import EnrollmentKind, Hub, Outcome, Retirement
from provisiond.policy import service_policy
from provisiond.ports import FactsQuery, StoredFacts
from provisiond.protocols.device_api import departure_to_json
from provisiond.protocols.service_api import registration_to_json
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from provisiond.system import SystemClock, SystemEntropy

EXAMPLE: Final = "Example: provisiond explain --registration-id sensor-7 --certificate-path sensor-7.pem"

_SAS_PREFIX: Final = "SharedAccessSignature "
_PEM_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----", re.ASCII
)
_ASSIGNED: Final = (Outcome.ASSIGNED, Outcome.ASSIGNING)

CertificatePath = Annotated[
    Path | None,
    typer.Option(
        "--certificate-path", "--cp", metavar="FILE", help="x509: the device's certificate and its intermediates."
    ),
]


def explain(
    registration_id: Annotated[
        str | None, typer.Option("--registration-id", "--rid", metavar="ID", help="Whose request.")
    ] = None,
    certificate_path: CertificatePath = None,
    endorsement_key: Annotated[
        str | None, typer.Option("--endorsement-key", "--ek", metavar="BASE64|FILE", help="tpm: the endorsement key.")
    ] = None,
    storage_root_key: Annotated[
        str | None,
        typer.Option("--storage-root-key", "--srk", metavar="BASE64|FILE", help="tpm: else the recorded one."),
    ] = None,
    ek_certificate: Annotated[
        Path | None, typer.Option("--ek-certificate", metavar="FILE", help="tpm: as a group needs it; PEM or DER.")
    ] = None,
    sas: Annotated[
        str | None,
        typer.Option("--sas", metavar="@FILE|-|TOKEN", help="symmetricKey: a SAS token; a file keeps it secret."),
    ] = None,
    tracking_id: Annotated[
        str | None, typer.Option("--tracking-id", metavar="ID", help="Instead: a decision of the past.")
    ] = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Show the decision on a device and how it came about; exits 5 when it was, or would be, refused.

    Without a certificate, key or token, the device is taken to have what its enrollment asks for, or, of a group,
    what it has registered with.
    """
    given = (certificate_path, endorsement_key, sas)
    if (registration_id is None) == (tracking_id is None):
        raise InvalidArgument("give --registration-id, or --tracking-id")
    if sum(value is not None for value in given) > 1:
        raise InvalidArgument("give one of --certificate-path, --endorsement-key and --sas")
    if endorsement_key is None and (storage_root_key is not None or ek_certificate is not None):
        raise InvalidArgument("--storage-root-key and --ek-certificate go with --endorsement-key")
    if tracking_id is not None and any(given):
        raise InvalidArgument("--tracking-id is of a decision that was made, with what was presented then")
    if tracking_id is not None:
        assigned = asyncio.run(_show_past(config, tracking_id, output))
    else:
        presented = _presented(certificate_path, endorsement_key, storage_root_key, ek_certificate, sas)
        assigned = asyncio.run(_show_future(config, registration_id or "", presented, output))
    if not assigned:
        raise typer.Exit(ExitCode.REFUSED)


def _presented(
    certificate_path: Path | None,
    endorsement_key: str | None,
    storage_root_key: str | None,
    ek_certificate: Path | None,
    sas: str | None,
) -> Presented:
    return Presented(
        chain=read_certificates(certificate_path) if certificate_path else (),
        sas_token=_read_token(sas) if sas is not None else None,
        endorsement_key=read_tpm_public(endorsement_key, "--endorsement-key") if endorsement_key else None,
        storage_root_key=read_tpm_public(storage_root_key, "--storage-root-key") if storage_root_key else None,
        ek_chain=_read_ek_chain(ek_certificate) if ek_certificate else (),
    )


async def _show_future(
    config: Path | None, registration_id: str, presented: Presented, output: OutputFormat | None
) -> bool:
    settings = load(config).settings
    claimed_id = check_id(EnrollmentKind.INDIVIDUAL, registration_id)
    decide = partial(
        decide_without_writing,
        claimed_id,
        presented,
        policy=service_policy(settings).registration,
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    departures: Sequence[Retirement] = ()
    if has_database(settings):
        async with await _open(settings) as store:
            explanation = await decide(store=store, hubs=await _hubs(settings, store))
            departures = await store.departures_of(claimed_id.key)
    else:  # nobody is enrolled yet, which is an answer as well
        explanation = await decide(store=_EmptyStore(), hubs=settings.linked_hubs())
    body = _future_body(explanation)
    if departures:
        body["leaving"] = [departure_to_json(departure) for departure in departures]
    if resolve_format(output) is OutputFormat.TABLE:
        print_story(body, would=True)
    else:
        print_record(body, output)
    return explanation.would_be_assigned


async def _show_past(config: Path | None, tracking_id: str, output: OutputFormat | None) -> bool:
    async with await _open(load(config).settings) as store:
        record = await store.get_audit(tracking_id)
    if record is None:
        raise RecordNotFound(
            f"no decision is kept with tracking id {tracking_id}; see `{command(config)} audit list` for those that "
            "are. 500000 is in the log only, and of 429001 only the first of a row is kept"
        )
    went_well = record.outcome in (*_ASSIGNED, "done")
    body = audit_to_json(record)
    if not went_well:
        body |= advice(record.code, str(record.outcome), record.trace)
    if resolve_format(output) is OutputFormat.TABLE:
        print_story(body, would=False)
    else:
        print_record(body, output)
    return went_well


class _EmptyStore:
    async def facts(self, _query: FactsQuery) -> StoredFacts:
        return StoredFacts()


async def _open(settings: Settings) -> SqliteStore:
    if not has_database(settings):
        raise RecordNotFound(f"{settings.database_file}: there is no database yet; `provisiond run` makes it")
    return await SqliteStore.open(settings.database_file, read_only=True)


async def _hubs(settings: Settings, store: SqliteStore) -> tuple[Hub, ...]:
    """As a decision would see them; health and latency are what was last seen."""
    draining, counts = await store.draining_hubs(), await store.count_by_hub()
    observations = await store.hub_observations()
    return tuple(as_seen(hub, draining, counts, observations) for hub in settings.linked_hubs())


def _read_token(value: str) -> str:
    if value.startswith(_SAS_PREFIX):
        note("note: a token on the command line can be seen by others on this machine; @FILE or - keeps it secret")
        return value
    try:
        return read_bytes(Path(value.removeprefix("@"))).decode("ascii").strip()
    except FileNotFoundError as error:
        raise InvalidArgument(
            f"--sas: {value[:40]!r} is neither a file nor a SAS token, which begins with SharedAccessSignature"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidArgument("--sas: this is no SAS token") from error


def _read_ek_chain(path: Path) -> tuple[bytes, ...]:
    """DER as it stands: some makers' certificates only an octet-exact reader takes."""
    data = read_bytes(path)
    blocks = _PEM_CERTIFICATE.findall(data)
    return tuple(b64decode(block) for block in blocks) if blocks else (data,)


# --- what is shown ---------------------------------------------------------------------------------------------------


def _future_body(explanation: Explanation) -> dict[str, Any]:
    decision, facts = explanation.decision, explanation.facts
    audit, error = decision.audit, decision.reply.error
    shown = decision.reply.registration or decision.registration
    trace = audit.trace if audit else ()
    code = audit.code if audit else None
    body: dict[str, Any] = {
        "registrationId": explanation.claimed_id.text,
        "wouldBeAssigned": explanation.would_be_assigned,
        "outcome": decision.outcome.value,
        "code": code,
        "deviceHears": error.message if error else None,
        "reason": audit.reason or None if audit else None,
        "assumptions": list(explanation.assumptions),
        "enrollmentKind": audit.enrollment_kind.value if audit and audit.enrollment_kind else None,
        "enrollmentId": audit.enrollment_id if audit else None,
        "enrollments": [
            {
                "kind": enrollment.kind.value,
                "id": enrollment.id,
                "attestationType": enrollment.attestation_type.value,
                "provisioningStatus": enrollment.provisioning_status.value,
                "origin": enrollment.origin,
            }
            for enrollment in explanation.enrollments
        ],
        "hub": shown.hub if shown else None,
        "assignedHub": shown.assigned_host if shown else None,
        "deviceId": shown.device_id if shown else None,
        "substatus": shown.substatus.value if shown and shown.substatus else None,
        "hubs": list(_hubs_to_json(explanation)),
        "registration": registration_to_json(facts.registration) if facts.registration else None,
        "trace": [check_to_json(check) for check in trace],
    }
    if not explanation.would_be_assigned:
        body |= advice(code, decision.outcome.value, trace)
    return {name: value for name, value in body.items() if value is not None}


def _hubs_to_json(explanation: Explanation) -> Iterator[dict[str, Any]]:
    scores = dict(explanation.hub_scores)
    order = list(scores)
    ranked = sorted(explanation.facts.hubs, key=lambda hub: order.index(hub.name) if hub.name in scores else len(order))
    for hub in ranked:
        yield {
            "name": hub.name,
            "host": hub.host,
            "weight": hub.weight,
            "eligible": hub.eligible,
            "healthy": hub.healthy,
            "latencyMs": hub.latency_ms,
            "assigned": hub.assigned_count,
            "score": scores.get(hub.name),
        }
