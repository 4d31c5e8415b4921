"""TPMs with certificates of a maker, which is the local CA of swtpm_setup in a directory of its own."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

_TIMEOUT_S = 60


@dataclass(frozen=True)
class TpmMaker:
    """Makes TPMs, and certifies their endorsement keys."""

    directory: Path

    def __post_init__(self):
        ca = self.directory / "ca"
        ca.mkdir(parents=True)
        self._write(
            "localca.conf",
            statedir=ca,
            signingkey=ca / "signkey.pem",
            issuercert=ca / "issuercert.pem",
            certserial=ca / "certserial",
        )
        (self.directory / "localca.options").write_text(
            "--platform-manufacturer Maker\n--platform-version 1.0\n--platform-model Gateway\n"
        )
        self._write(
            "setup.conf",
            create_certs_tool="/usr/bin/swtpm_localca",
            create_certs_tool_config=self.directory / "localca.conf",
            create_certs_tool_options=self.directory / "localca.options",
            active_pcr_banks="sha256",
        )

    def make(self, name):
        """A TPM with an RSA-2048 and a P-384 endorsement key and their certificates; its state directory."""
        state = self.directory / name
        state.mkdir()
        command = [
            "swtpm_setup", "--tpm2", "--tpmstate", state, "--create-ek-cert", "--config", self.directory / "setup.conf",
        ]  # fmt: skip
        as_root = ["--runas", "root"] if os.geteuid() == 0 else []
        made = subprocess.run([*command, *as_root], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        return state

    @property
    def root_der(self):
        """The maker's root certificate."""
        return self._certificate("swtpm-localca-rootca-cert.pem")

    @property
    def issuer_der(self):
        """What is between the root and the TPMs."""
        return self._certificate("issuercert.pem")

    def _certificate(self, name):
        return x509.load_pem_x509_certificate((self.directory / "ca" / name).read_bytes()).public_bytes(Encoding.DER)

    def _write(self, name, **values):
        (self.directory / name).write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
