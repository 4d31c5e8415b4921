"""Which hubs a device could do anything with. Pure.

A hub that takes passwords only gives a device with a certificate a key to derive its password from, sealed to the
certificate's key. That takes topics that can carry it, and a key that can be sealed to; a device without either would
be assigned into a void.
"""

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from provisiond.attestation.certificate import parse_certificate
from provisiond.errors import AllocationError
from provisiond.model import AttestationType, Hub, Role, Trace, Verified


def within_reach(hubs: tuple[Hub, ...], verified: Verified, *, protocol: Role, trace: Trace) -> tuple[Hub, ...]:
    """The hubs that this device can connect to once it is assigned there; the trace hears of the others.

    Args:
        hubs: every linked hub.
        verified: the device.
        protocol: whose topics it asks on.
        trace: gets a line for what is left out.

    Raises:
        AllocationError: there is none (400208).
    """
    left_out = [hub for hub in hubs if not hub.knows_certificates]
    if not left_out or verified.attestation_type is not AttestationType.X509:
        return hubs
    obstacle = _obstacle(verified, protocol)
    if obstacle is None:
        return hubs
    names = ", ".join(hub.name for hub in left_out)
    reachable = tuple(hub for hub in hubs if hub.knows_certificates)
    finding = f"not {names}: devices have passwords there, and {obstacle}"
    if not reachable:
        trace.failed("hub-credential", finding, "DPS 400208")
        raise AllocationError(f"no hub for {verified.registration_id.key}: {finding}")
    trace.passed("hub-credential", finding)
    return reachable


def _obstacle(verified: Verified, protocol: Role) -> str | None:
    if protocol is not Role.NATIVE:
        return "only the native topics (provisiond/v1/…) can give one to a device with a certificate"
    key = parse_certificate(verified.certificate_der or b"").public_key()
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        return "nothing can be sealed to the key of the certificate: it takes an EC or RSA key"
    return None
