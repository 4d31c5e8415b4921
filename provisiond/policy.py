"""What the pipeline decides by, made from the configuration."""

from provisiond.attestation.x509 import X509Limits
from provisiond.pipeline import ServicePolicy
from provisiond.ports import PendingLimits
from provisiond.registration.attest import AttestationPolicy
from provisiond.registration.challenge_ledger import ChallengeLimits
from provisiond.registration.decide import RegistrationPolicy
from provisiond.registration.throttle import RequestLimits
from provisiond.settings import Settings
from provisiond.settings.trust import load_crls, load_tpm_policy


def service_policy(settings: Settings) -> ServicePolicy:
    """The pipeline's part of the configuration.

    Raises:
        ConfigurationError: a file it names cannot be read.
    """
    registration, limits = settings.registration, settings.broker.limits
    attestation = AttestationPolicy(
        id_scope=settings.service.id_scope,
        allowed=frozenset(settings.attestation.allowed),
        clock_skew_s=settings.attestation.clock_skew_s,
        x509_limits=X509Limits(max_chain=settings.attestation.x509.max_chain),
        challenge_ttl_s=settings.attestation.challenge_ttl_s,
        crls=load_crls(settings.attestation.x509),
        tpm=load_tpm_policy(settings.attestation.tpm),
    )
    return ServicePolicy(
        registration=RegistrationPolicy(
            attestation=attestation,
            retry_after_s=round(registration.retry_after_s),
            default_allocation=registration.default_allocation,
            default_reprovision=registration.reprovision_policy,
            retire_after_s=registration.retire_after_s,
            unknown_pending=registration.unknown == "pending",
        ),
        pending=PendingLimits(devices=registration.pending_devices, ttl_s=registration.pending_ttl_s),
        reply=registration.reply,
        requests=RequestLimits(
            requests_per_min=limits.requests_per_min,
            requests_per_min_per_address=limits.requests_per_min_per_address,
            wrong_keys=limits.wrong_keys,
            wrong_keys_pause_s=limits.wrong_keys_pause_s,
        ),
        challenges=ChallengeLimits(total=limits.challenges, per_address=limits.challenges_per_address),
    )
