"""What has to be read before a request can be decided."""

from collections.abc import Sequence
from dataclasses import replace

from provisiond.attestation import x509
from provisiond.attestation.tpm import endorsement_key_hash
from provisiond.model import Facts, Hub, PollRequest, Request, Role
from provisiond.ports import FactsQuery, StoredFacts


def facts_query(request: Request) -> FactsQuery:
    """The question to the store that a request brings up."""
    evidence = request.evidence
    tpm = evidence.tpm
    return FactsQuery(
        registration_key=request.claimed_id.key,
        issuer_hashes=x509.issuer_hashes(evidence.unverified_chain),
        symmetric_key_groups=evidence.sas_token is not None or evidence.claims_symmetric_key,
        tpm_groups=tpm is not None,
        endorsement_key_hash=None if tpm is None else endorsement_key_hash(tpm.endorsement_key),
        registered_group=isinstance(request, PollRequest) and request.protocol is Role.NATIVE,
    )


def facts_of(stored: StoredFacts, hubs: Sequence[Hub]) -> Facts:
    """What was read, with the hubs: those that operators drain are not eligible."""
    draining = stored.draining_hubs
    if draining:
        hubs = [replace(hub, eligible=False) if hub.name in draining else hub for hub in hubs]
    return Facts(
        individual=stored.individual,
        groups=stored.groups,
        registration=stored.registration,
        endorsement_key_owner=stored.endorsement_key_owner,
        registered_group=stored.registered_group,
        hubs=tuple(hubs),
    )
