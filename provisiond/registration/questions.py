"""What has to be read before a request can be decided."""

from provisiond.attestation import x509
from provisiond.attestation.tpm import endorsement_key_hash
from provisiond.model import PollRequest, Request, Role
from provisiond.ports import FactsQuery


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
