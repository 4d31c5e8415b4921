"""Abuse of certificates: cases 36 to 38."""

import asyncio
import ssl

from tests.abuse.site import Site, case
from tests.attestation.der import padding_twin
from tests.certificates import Ca, Issued, make_ca, make_leaf


async def _outcome(site: Site, leaf: Issued, *extra: bytes, certificate: bytes | None = None) -> int | str:
    """What becomes of a device with this certificate: the status of its registration, of its refusal, or `closed`."""
    name = leaf.certificate.subject.rdns[-1].rfc4514_string().removeprefix("CN=")
    path, key = leaf.write(site.directory, name)
    path.write_bytes((certificate or path.read_bytes()) + b"".join(extra))
    try:
        async with site.device(name, tls=site.client_context(path, key)) as device:
            status, answer = await device.register()
    except (ConnectionError, OSError):
        return "closed"
    return str(answer["status"]) if status == 200 else status


def _extras(count: int) -> list[bytes]:
    return [make_ca(f"Extra {number}").pem for number in range(count)]


@case(36, "a hundred certificates, 1 MB of them, a look-alike authority, a cycle")
async def chains(site: Site) -> str:
    lookalike = make_ca("Line A")
    first, second = make_ca("Cycle 1"), make_ca("Cycle 2")
    large = make_leaf("large", site.line_a, dns_names=[f"{number:050d}.example" for number in range(18_000)])
    assert len(large.der) > 1_000_000
    assert await _outcome(site, make_leaf("good", site.line_a)) == "assigned"
    answers = [
        await _outcome(site, make_leaf("hundred", site.line_a), *_extras(100)),
        await _outcome(site, large),
        await _outcome(site, make_leaf("seven", site.line_a), *_extras(7)),
        await _outcome(site, make_leaf("lookalike", lookalike), lookalike.pem, site.line_a.pem),
        await _outcome(site, make_leaf("cycle", first), first.pem, second.pem, make_ca("Cycle 1", second).pem),
        await _outcome(site, make_leaf("self-signed")),
    ]
    assert answers[:2] == ["closed", "closed"], answers
    assert all(answer in (401, "closed") for answer in answers), answers
    return f"{answers}; x509-limbo and PKITS: tests/attestation"


@case(37, "a certificate of one group for a device of another")
async def other_group(site: Site) -> str:
    assert await _outcome(site, make_leaf("pinned", site.line_a)) == 401
    group = ("enrollment-group", "update", "line-b", "--provisioning-status")
    await asyncio.to_thread(site.service.command, *group, "disabled")
    try:
        outcome = await _outcome(site, make_leaf("of-line-b", site.line_b), site.line_a.pem)
    finally:
        await asyncio.to_thread(site.service.command, *group, "enabled")
    assert outcome == "disabled", outcome
    return "401: its enrollment pins another; its own group disabled: another group's CA beside it does not help"


@case(38, "the signature-padding twin of a revoked certificate")
async def padding_twins(site: Site) -> str:
    leaf = _with_twin(site.line_a)
    twin = ssl.DER_cert_to_PEM_cert(padding_twin(leaf.der)).encode()
    assert await _outcome(site, leaf) == "assigned"
    await asyncio.to_thread(site.service.command, "device", "disable", "revoked")
    outcomes = [await _outcome(site, leaf), await _outcome(site, leaf, certificate=twin)]
    assert "assigned" not in outcomes, outcomes
    return f"the original: {outcomes[0]}; its twin: {outcomes[1]}"


def _with_twin(issuer: Ca) -> Issued:
    """A leaf whose signature ends in a zero bit, which another encoding may leave out."""
    while (leaf := make_leaf("revoked", issuer)).der[-1] & 1:
        pass
    return leaf
