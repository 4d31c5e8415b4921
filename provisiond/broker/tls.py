"""TLS for the broker's door: pyOpenSSL on memory BIOs, no sockets here.

Python's own `ssl` ends the handshake of a client whose certificate no trust anchor covers; here any certificate
finishes it, so that possession of its key is proved and `attestation` judges the chain. Nothing is ever resumed: every
connection shows its own certificate, or has none.
"""

from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from provisiond.errors import ConfigurationError, ProvisiondError

ClientCertificates = Literal["none", "optional", "required"]

# TLS 1.2 only; TLS 1.3 has its own. Forward secrecy throughout; CBC only with SHA-2, for old embedded stacks.
_TLS_1_2_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES+SHA256:ECDHE+AES+SHA384"

# pyOpenSSL does not name it; OpenSSL has refused client-initiated renegotiation by default since 3.0 as well.
_OP_NO_RENEGOTIATION: Final = 1 << 30

_RECORD_BYTES: Final = 16 * 1024  # the most plaintext in one TLS record (RFC 8446 5.1)
_RECORD_OVERHEAD_BYTES: Final = 256  # header, nonce, tag and padding of any cipher (RFC 8446 5.2)
_FLIGHT_BYTES: Final = 4 * 1024  # a server's handshake flight with one intermediate, at one go


class TlsFailure(ProvisiondError):
    """The TLS peer broke the protocol or a limit. What it is owed (an alert) is in `TlsSession.outgoing`."""


def load_context(certificate_path: Path, key_path: Path, client_certificates: ClientCertificates) -> SSL.Context:
    """Make a server context from PEM files: a certificate with its intermediates, and its unencrypted key.

    Raises:
        ConfigurationError: a file is missing, unreadable or not PEM, the key is encrypted, or they do not belong
            together. Nothing prompts on a terminal.
    """
    certificates, key = _load_certificates(certificate_path), _load_key(key_path)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    try:
        context.set_cipher_list(_TLS_1_2_CIPHERS)
        context.use_certificate(certificates[0])
        for intermediate in certificates[1:]:
            context.add_extra_chain_cert(intermediate)
        context.use_privatekey(key)  # type: ignore[arg-type]  # a key type it cannot use raises below
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise ConfigurationError(f"{key_path} is not the key of the certificate in {certificate_path}") from error
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(
        SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | _OP_NO_RENEGOTIATION
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection keeps no record buffers: 30 KiB less
    if client_certificates != "none":
        context.set_verify(SSL.VERIFY_PEER, _accept_for_attestation)
        # OpenSSL would check every signature of the chain before the callback overrules it; at depth 0 it looks at
        # the leaf alone, and attestation judges the whole chain once.
        context.set_verify_depth(0)
    return context


def _accept_for_attestation(*_: object) -> bool:
    return True


def _load_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read the certificate file {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not a PEM certificate chain: {error}") from error


def _load_key(path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"cannot read the key file {path}: {error.strerror}") from error
    except TypeError as error:
        raise ConfigurationError(f"the key in {path} is encrypted; give it without a passphrase") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not a PEM private key") from error


class TlsSession:
    """The server's side of one TLS connection, in memory.

    Feed what arrives to `handshake` until it returns True, then to `decrypt`; send what `outgoing` and `encrypt` give.
    """

    __slots__ = ("_connection", "is_closed", "is_established")

    def __init__(self, context: SSL.Context) -> None:
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()
        self.is_established = False
        self.is_closed = False

    def handshake(self, data: bytes | memoryview) -> bool:
        """Take handshake bytes; True once the handshake is complete.

        Raises:
            TlsFailure: these bytes are not a handshake that can succeed.
        """
        self._connection.bio_write(data)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise TlsFailure(f"TLS handshake failed: {_reason(error)}") from error
        self.is_established = True
        return True

    @property
    def client_speaks_next(self) -> bool:
        """Whether nothing that waits to be sent is needed by the client: after a TLS 1.3 handshake only tickets are.

        OpenSSL has two of 79 bytes even where there are to be none (`OP_NO_TICKET`, SSL_CTX_set_num_tickets(3)), and
        pyOpenSSL cannot turn them off: to send them by themselves would cost a system call and wake up the device.
        """
        return self._connection.get_protocol_version() == SSL.TLS1_3_VERSION

    def decrypt(self, data: bytes | memoryview = b"") -> bytes:
        """Take records and give their plaintext; sets `is_closed` when the peer has said it is done.

        Raises:
            TlsFailure: a record is not authentic, or the peer breaks the protocol.
        """
        if data:
            self._connection.bio_write(data)
        plaintext = b""
        try:
            while True:
                plaintext += self._connection.recv(_RECORD_BYTES)
        except SSL.WantReadError:
            return plaintext
        except SSL.ZeroReturnError:
            self.is_closed = True
            return plaintext
        except SSL.Error as error:
            raise TlsFailure(f"TLS failed: {_reason(error)}") from error

    def encrypt(self, data: bytes) -> bytes:
        """Records that carry `data`.

        Raises:
            TlsFailure: the connection cannot carry data any more.
        """
        try:
            for start in range(0, len(data), _RECORD_BYTES):
                self._connection.send(data[start : start + _RECORD_BYTES])
        except SSL.Error as error:
            raise TlsFailure(f"TLS failed: {_reason(error)}") from error
        return self.outgoing(len(data))

    def close(self) -> bytes:
        """A close_notify alert, as far as one can be sent."""
        if self.is_established:
            try:
                self._connection.shutdown()
            except SSL.Error:
                return b""
        return self.outgoing()

    def outgoing(self, plaintext_bytes: int = 0) -> bytes:
        """What waits to be sent; `plaintext_bytes` is how much was just encrypted, for the size of the buffer."""
        size = plaintext_bytes + _RECORD_OVERHEAD_BYTES * (plaintext_bytes // _RECORD_BYTES + 1)
        size = max(size, _FLIGHT_BYTES)
        data = b""
        try:
            while True:
                data += (chunk := self._connection.bio_read(size))
                if len(chunk) < size:
                    return data
        except SSL.WantReadError:
            return data

    def presented_chain(self, max_certificates: int) -> tuple[bytes, ...]:
        """DER of the certificates the client presented, leaf first; empty when it has none.

        On a server, `get_peer_cert_chain` leaves the leaf out (SSL_get_peer_cert_chain(3)): it comes from a call of
        its own. That the client holds the leaf's key is proved, nothing else is.

        Raises:
            TlsFailure: more than `max_certificates`.
        """
        leaf = self._connection.get_peer_certificate()
        if leaf is None:
            return ()
        chain = [leaf, *(self._connection.get_peer_cert_chain() or ())]
        if len(chain) > max_certificates:
            raise TlsFailure(f"{len(chain)} certificates presented, {max_certificates} are allowed")
        return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain)


def _reason(error: SSL.Error) -> str:
    """OpenSSL's words for an error, such as `wrong version number`."""
    queue = error.args[0] if error.args else ()
    return "; ".join(entry[-1] for entry in queue) if isinstance(queue, list) and queue else type(error).__name__
