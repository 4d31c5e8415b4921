"""`provisiond doctor`: what is wrong, and the command that mends it."""

import asyncio
import contextlib
import resource
import shutil
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import typer
from cryptography import x509

from provisiond.cli.doctor_hubs import examine_certificate_hubs, examine_revocation_list
from provisiond.cli.doctor_machine import clock_is_synchronized, examine_clock, examine_tpm_devices
from provisiond.cli.doctor_service import examine_service_user
from provisiond.cli.doctor_store import examine_operations, has_other_schema, is_large, is_open_to_all, mend_full_disk
from provisiond.cli.exit_codes import ExitCode
from provisiond.cli.finding import Finding
from provisiond.cli.output import Output, OutputFormat, plain, print_records, resolve_format
from provisiond.cli.reachability import is_listening, is_open
from provisiond.cli.renewal import renewal
from provisiond.cli.session import Config, command, has_database, load, start_command
from provisiond.errors import AdminError, ConfigurationError, StoreError
from provisiond.local_ca import load_root_certificate
from provisiond.settings import Listener, Settings
from provisiond.settings.files import check_files
from provisiond.settings.trust import load_tpm_policy
from provisiond.store import SqliteStore
from provisiond.system import SystemClock

EXAMPLE: Final = "Example: provisiond doctor -o json"

_EXPIRY_NOTICE: Final = timedelta(days=90)
_STATE_MIN_FREE_BYTES: Final = 100 * 1024 * 1024
# Files that are open beside the connections: database, logs, libraries.
_OTHER_FILES: Final = 256


def doctor(output: Output = None, config: Config = None) -> None:
    """Look for what is wrong, and say what mends it; exits 1 when something FAILs."""
    findings = list(_examine(config))
    if resolve_format(output) is OutputFormat.TABLE:
        for finding in findings:
            mend = f"\n      mend: {finding.mend}" if finding.mend else ""
            print(f"{finding.level:<4}  {finding.subject}: {plain(finding.text)}{mend}")
    else:
        names = ("level", "subject", "text", "mend")
        bodies = [{name: getattr(finding, name) for name in names} for finding in findings]
        print_records(bodies, {name: name for name in names}, output)
    if any(finding.level == "FAIL" for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


def _examine(config: Path | None) -> Iterator[Finding]:
    try:
        loaded = load(config)
    except ConfigurationError as error:
        yield Finding(level="FAIL", subject="configuration", text=str(error), mend=f"{command(config)} config check")
        return
    settings = loaded.settings
    yield Finding(level="ok", subject="configuration", text=str(loaded.file or "defaults, no file"))
    now = SystemClock().now()
    yield from examine_clock(now, is_synchronized=clock_is_synchronized())
    yield from _examine_files(settings, config, now)
    yield from _examine_state(settings, config)
    yield from examine_service_user(settings, loaded.file)
    yield from _examine_database(settings, config)
    yield from _examine_ca(settings, config, now)
    yield from examine_revocation_list(settings, command(config), now)
    for listener in settings.broker.listeners:
        yield from _examine_listener(listener, settings, config)
    yield from _examine_broker(settings, config)
    yield from examine_certificate_hubs(settings)
    yield from examine_operations(settings, config, now)
    yield from _examine_limits(settings)
    yield from _examine_tpm(settings)
    yield from examine_tpm_devices()


def _examine_files(settings: Settings, config: Path | None, now: datetime) -> Iterator[Finding]:
    try:
        warnings = check_files(settings, now=now)
    except ConfigurationError as error:
        yield Finding(level="FAIL", subject="files", text=str(error), mend=_mend_file(str(error), settings, config))
        return
    for warning in warnings:
        yield Finding(level="warn", subject="files", text=warning, mend=_mend_file(warning, settings, config))
    if not warnings:
        yield Finding(level="ok", subject="files", text="certificates, keys and revocation lists can be used")


def _mend_file(problem: str, settings: Settings, config: Path | None) -> str:
    """What mends it stands in the problem, when that is one command."""
    is_brokers = problem.startswith("broker.external")
    if problem.startswith("hubs ("):
        return f"{command(config)} hub add --help  # a hub of another type; then `hub remove` this one"
    if "renew it" in problem and is_brokers:
        file = settings.broker.external.cert_file
        return f"systemctl reload provisiond  # after your authority's new certificate has been put at {file}"
    if "renew it" in problem:
        return renewal(settings, config)
    if ".cert_file: " in problem and not is_brokers:
        return renewal(settings, config, host=next((hub.host for hub in settings.hubs), ""))
    return problem.partition("; run: ")[2] or f"{command(config)} config check"


def _examine_state(settings: Settings, config: Path | None) -> Iterator[Finding]:
    directory = settings.service.state_dir
    if not directory.is_dir():
        text = f"{directory} is not there yet"
        yield Finding(level="warn", subject="state", text=text, mend=start_command(config))
        return
    mode = stat.S_IMODE(directory.stat().st_mode)
    free_bytes = shutil.disk_usage(directory).free
    if mode & stat.S_IRWXO:
        text = f"everybody may enter {directory} (mode {mode:04o})"
        yield Finding(level="FAIL", subject="state", text=text, mend=f"chmod 0700 {directory}")
    elif free_bytes < _STATE_MIN_FREE_BYTES:
        text = f"{directory} has {free_bytes // 2**20} MiB left"
        yield Finding(level="warn", subject="state", text=text, mend=mend_full_disk(settings))
    else:
        yield Finding(level="ok", subject="state", text=f"{directory}, {free_bytes // 2**20} MiB free")


def _examine_database(settings: Settings, config: Path | None) -> Iterator[Finding]:
    file = settings.database_file
    if not has_database(settings):
        text = f"{file} is not there yet"
        yield Finding(level="warn", subject="database", text=text, mend=start_command(config))
        return

    if is_open_to_all(file) or has_other_schema(settings):
        return  # told by the checks of the keys and of the schema
    sample = is_large(file)

    async def look() -> tuple[str, ...]:
        async with await SqliteStore.open(file, read_only=True) as store:
            return await store.check(sample=sample)

    try:
        problems = asyncio.run(look())
    except StoreError as error:
        is_full = "disk is full" in str(error)
        mend = mend_full_disk(settings) if is_full else f"{command(config)} db check"
        yield Finding(level="FAIL", subject="database", text=str(error), mend=mend)
        return
    for problem in problems:
        yield Finding(level="FAIL", subject="database", text=problem, mend=f"{command(config)} db restore FILE")
    if not problems and sample:
        text = f"{file}, a sample of its records is sound; {command(config)} db check looks at all of them"
        yield Finding(level="ok", subject="database", text=text)
    elif not problems:
        yield Finding(level="ok", subject="database", text=f"{file}, every record is sound")


def _examine_ca(settings: Settings, config: Path | None, now: datetime) -> Iterator[Finding]:
    try:
        certificate = load_root_certificate(settings.ca_dir)
    except AdminError as error:
        text = f"no local CA ({error}); that is right when the certificates are from another"
        yield Finding(level="ok", subject="ca", text=text)
        return
    expiry = certificate.not_valid_after_utc
    if expiry - now < _EXPIRY_NOTICE:
        text = f"the root certificate ends on {expiry:%Y-%m-%d}"
        yield Finding(
            level="warn", subject="ca", text=text, mend="provisiond init --dir NEW  # then give devices its root"
        )
    else:
        yield Finding(level="ok", subject="ca", text=f"root certificate until {expiry:%Y-%m-%d}")
    key = settings.ca_dir / "root.key"
    if key.exists() and stat.S_IMODE(key.stat().st_mode) & stat.S_IRWXO:
        text = f"everybody may read or change {key}"
        yield Finding(level="FAIL", subject="ca", text=text, mend=f"chmod 0600 {key}; {command(config)} ca show")


def _examine_listener(listener: Listener, settings: Settings, config: Path | None) -> Iterator[Finding]:
    subject = f"listener {listener.name}"
    if is_listening(listener):
        yield Finding(level="ok", subject=subject, text=f"{listener.bind} answers")
    else:
        text = f"nothing answers at {listener.bind}"
        yield Finding(level="warn", subject=subject, text=text, mend=start_command(config))
    names = _certificate_names(listener)
    here = [hub.host for hub in settings.hubs if hub.is_embedded]
    missing = [host for host in here if names and host.partition(":")[0].lower() not in names]
    if missing:
        text = (
            f"devices are sent to {', '.join(missing)}, which is not in {listener.cert_file}: add it, or change the hub"
        )
        yield Finding(
            level="warn",
            subject=subject,
            text=text,
            mend=renewal(settings, config, host=missing[0]),
        )


def _examine_broker(settings: Settings, config: Path | None) -> Iterator[Finding]:
    if settings.broker.mode == "embedded":
        return
    external = settings.broker.external
    if is_open(external.address):
        yield Finding(level="ok", subject="broker", text=f"{external.url} answers")
    else:
        yield Finding(
            level="FAIL",
            subject="broker",
            text=f"nothing answers at {external.url}: no device can reach the service",
            mend=f"{command(config)} config show | grep url  # start that broker, or mend [broker.external] url",
        )


def _certificate_names(listener: Listener) -> set[str]:
    """Names and addresses in the listener's certificate; none when it cannot be read, which is told elsewhere."""
    if listener.cert_file is None:
        return set()
    try:
        certificate = x509.load_pem_x509_certificates(listener.cert_file.read_bytes())[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return set()
    return {str(name.value).lower() for name in names}


def _examine_limits(settings: Settings) -> Iterator[Finding]:
    wanted = settings.broker.limits.max_connections + _OTHER_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        text = f"{hard} open files are allowed, max_connections needs {wanted}"
        yield Finding(
            level="warn",
            subject="limits",
            text=text,
            mend=f"ulimit -n {wanted}  # before `provisiond run`; LimitNOFILE={wanted} in a systemd unit",
        )
    else:
        yield Finding(level="ok", subject="limits", text="open files suffice for max_connections")


def _examine_tpm(settings: Settings) -> Iterator[Finding]:
    directory = settings.attestation.tpm.ek_roots_dir
    with contextlib.suppress(ConfigurationError):  # the files were looked at before
        count = len(load_tpm_policy(settings.attestation.tpm).anchors)
        nobody = "no certificate of a TPM maker: TPM enrollment groups let nobody in"
        trusted = f"{count} certificates of TPM makers are trusted" if count else nobody
        yield Finding(level="ok", subject="tpm", text=f"{directory}: {trusted}")
