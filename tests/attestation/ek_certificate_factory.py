"""A TPM maker's certificate authority in software, and endorsement keys for it to certify."""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from provisiond.attestation.tpm_structures import encode_public, parse_public
from tests.attestation.tpm_vectors import public_named
from tests.certificates import make_key_usage

FROM, UNTIL = datetime(2025, 1, 1, tzinfo=UTC), datetime(2035, 1, 1, tzinfo=UTC)


def software_endorsement_key():
    """A P-256 endorsement key of template L-2 that no TPM holds."""
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    template = parse_public(public_named("ek-p256-L2")).template
    return parse_public(encode_public(template, (numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big"))))


def tpm_name(manufacturer, model, version):
    attributes = {"2.23.133.2.1": manufacturer, "2.23.133.2.2": model, "2.23.133.2.3": version}
    return x509.Name(
        [x509.NameAttribute(ObjectIdentifier(oid), text) for oid, text in attributes.items() if text],
    )


class EkAuthority:
    """Issues EK certificates and subordinate authorities."""

    def __init__(
        self, name="Test TPM CA", key=None, issuer=None, *, path_length=None, is_ca=True, usage=None, **signing
    ):
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        builder = (
            self._builder(self.name, signer.name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length if is_ca else None), critical=True)
            .add_extension(usage or make_key_usage("key_cert_sign"), critical=True)
        )
        self.der = signer.sign(builder, **signing)

    @staticmethod
    def _builder(subject, issuer, public_key):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(FROM)
            .not_valid_after(UNTIL)
        )

    def sign(self, builder, digest=None, rsa_padding=None):
        certificate = builder.sign(self.key, digest or hashes.SHA256(), rsa_padding=rsa_padding)
        return certificate.public_bytes(serialization.Encoding.DER)

    def issue(self, public, *, manufacturer="id:54455354", model="test", version="id:00010000", **signing):
        usage = (
            make_key_usage("key_encipherment")
            if isinstance(public.key, rsa.RSAPublicKey)
            else make_key_usage("key_agreement")
        )
        alternative = x509.SubjectAlternativeName([x509.DirectoryName(tpm_name(manufacturer, model, version))])
        builder = (
            self._builder(x509.Name([]), self.name, public.key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(alternative, critical=True)
        )
        return self.sign(builder, **signing)


def pss(digest, salt_length=None):
    return padding.PSS(padding.MGF1(digest), digest.digest_size if salt_length is None else salt_length)
