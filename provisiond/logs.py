"""The log: one line a record to stderr, from structlog and from the standard library alike, without secrets.

    console    for a person at a terminal
    logfmt     time=… level=info event="register assigned" registration_id=sensor-7 …
    json       the same as one JSON object a line

Under systemd lines begin with their priority (`<6>`, sd-daemon(3)) and leave the time to the journal.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "logfmt", "json"]

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# What these say below WARNING is about themselves; amqtt says payloads, and httpx whole URLs, with keys in them.
_CHATTY_LOGGERS: Final = ("amqtt", "transitions", "aiosqlite", "asyncio", "aiomqtt", "mqtt", "httpx", "httpcore")

_REDACTED: Final = "[redacted]"
_SECRET_NAME: Final = re.compile(
    r"key|password|passwd|passphrase|secret|token|sas|authorization|signature|credential|auth_?value", re.IGNORECASE
)
# What stands before "key" in a name does not matter, and to look for it would take the square of a long text.
_NAMES: Final = r"(?:key|password|passwd|passphrase|secret|token)"
_SECRET_TEXTS: Final = (
    (re.compile(r"SharedAccessSignature(?:\s|\+|%20)+[^\s\"']+", re.IGNORECASE), f"SharedAccessSignature {_REDACTED}"),
    (re.compile(r"\b(sig)(=|%3d)[^&\s\"']+", re.IGNORECASE), rf"\1\2{_REDACTED}"),
    # In quotes: JSON, also inside a string of JSON, and what Python shows of a dictionary.
    (re.compile(rf"({_NAMES}[\\\"']*\s*[:=]\s*b?\\*[\"'])[^\"'\\]+", re.IGNORECASE), rf"\1{_REDACTED}"),
    # Without quotes: connection strings; after a colon only what has no words in it, for people write colons too.
    (re.compile(rf"({_NAMES}=)[^\s\"'&;,\\]+", re.IGNORECASE), rf"\1{_REDACTED}"),
    (re.compile(rf"({_NAMES}:\s*)[A-Za-z0-9+/_=%-]{{16,}}", re.IGNORECASE), rf"\1{_REDACTED}"),
    (
        re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer)\s+)?)[^\s\"',]+", re.IGNORECASE),
        rf"\1{_REDACTED}",
    ),
    (re.compile(r"([?&](?:code|access_token)=)[^&\s\"']+", re.IGNORECASE), rf"\1{_REDACTED}"),
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{_REDACTED}@"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL), _REDACTED),
)
# What any of these patterns matches has one of these in it; to look for them takes a fifth of the time.
_SECRET_MARK: Final = re.compile(
    r"sharedaccesssig|sig=|sig%3d|key|passw|passphrase|secret|token|authorization|code=|://|-----begin"
)
_CONTROL_CHARACTERS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUMBERS: Final = (bool, int, float)
# A record is for reading; what is longer is a stranger's.
_LONGEST_TEXT: Final = 8192


def configure_logs(
    *,
    level: LogLevel = "info",
    output_format: LogFormat = "auto",
    stream: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Send every record to `stream` (stderr) from now on; may be called again to change level or format.

    Args:
        level: least level that is shown.
        output_format: `auto` is console on a terminal, else logfmt.
        stream: where to write; a write that fails is dropped, for a full disk must not stop devices.
        environment: looked at for `JOURNAL_STREAM`, by which systemd says that it reads the stream.
    """
    target = _UnfailingStream(stream or sys.stderr)
    journal = _is_journal(target, environment)
    if output_format == "auto":
        output_format = "console" if target.isatty() and not journal else "logfmt"
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        *([] if journal else [structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")]),
        structlog.processors.format_exc_info,
        _clean_console_record if output_format == "console" else _clean_record,
    ]
    rendering = _renderer(output_format, journal=journal, colors=target.isatty())
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *names: _StreamLogger(target, names[0] if names else "provisiond"),
        # A cached logger would keep the old level after a reload.
        cache_logger_on_first_use=False,
    )
    _route_standard_library(target, level, shared, rendering)


def redact(text: str) -> str:
    """Replace what looks like a SAS token, a signature, a key or a password."""
    if _SECRET_MARK.search(text.casefold()) is None:
        return text
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


class _UnfailingStream:
    """A text stream whose writes never raise: the log may be lost, devices may not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


class _StreamLogger:
    """The end of the chain: one rendered line, one write."""

    def __init__(self, stream: _UnfailingStream, name: str) -> None:
        self._stream = stream
        self.name = name

    def msg(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    debug = info = warning = error = critical = exception = msg


def _is_journal(stream: _UnfailingStream, environment: Mapping[str, str]) -> bool:
    """Whether systemd reads this very stream: `JOURNAL_STREAM` is its device and inode (systemd.exec(5))."""
    try:
        device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
        status = os.fstat(stream.fileno())
        return (int(device), int(inode)) == (status.st_dev, status.st_ino)
    except (OSError, ValueError):
        return False


def _renderer(output_format: str, *, journal: bool, colors: bool) -> list[Processor]:
    if output_format == "console":
        # Never the traceback that shows local variables: they hold secrets.
        return [
            structlog.dev.ConsoleRenderer(
                colors=colors, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
            )
        ]
    order = ["time", "level", "logger", "event"]
    render: Processor = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if output_format == "json"
        else structlog.processors.LogfmtRenderer(key_order=order, drop_missing=True)
    )
    return [_PriorityPrefix(render)] if journal else [render]


class _PriorityPrefix:
    """Put `<N>` before a rendered line."""

    def __init__(self, render: Processor) -> None:
        self._render = render

    def __call__(self, logger: Any, name: str, record: EventDict) -> str:
        priority = _PRIORITIES.get(str(record.pop("level", "info")), 6)
        return f"<{priority}>{self._render(logger, name, record)!s}"


def _clean_record(_logger: Any, _name: str, record: EventDict) -> EventDict:
    if _is_clean(record):
        return record
    return {key: _clean(key, value) for key, value in record.items()}


def _is_clean(record: EventDict) -> bool:
    """Whether cleaning would change nothing, seen at one look at all values together; in doubt it says no."""
    texts = []
    for key, value in record.items():
        if type(value) is str:
            texts.append(value)
        elif value is not None and not isinstance(value, _NUMBERS):
            return False
        if _is_secret(key):
            return False
    text = " ".join(texts)
    return len(text) <= _LONGEST_TEXT and text.isprintable() and _SECRET_MARK.search(text.casefold()) is None


def _clean_console_record(_logger: Any, _name: str, record: EventDict) -> EventDict:
    """As `_clean_record`, but a traceback keeps its lines."""
    cleaned = {key: _clean(key, value) for key, value in record.items() if key != "exception"}
    if "exception" in record:
        lines = redact(str(record["exception"])).splitlines()
        cleaned["exception"] = "\n".join(_escape(line) for line in lines)
    return cleaned


@lru_cache(maxsize=256)  # names are the program's own, and few
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _clean(key: str, value: Any) -> Any:
    """A value that is safe to write: no secret, no control character, nothing that would be rendered later."""
    if value is None or isinstance(value, _NUMBERS) or key.startswith("_"):
        return value
    if _is_secret(key):
        return _REDACTED
    if isinstance(value, str):
        return _escape(redact(value[:_LONGEST_TEXT]))[:_LONGEST_TEXT]
    if isinstance(value, Mapping):
        return {str(name): _clean(str(name), inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(key, inner) for inner in value]
    return _escape(redact(str(value)[:_LONGEST_TEXT]))[:_LONGEST_TEXT]


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def _route_standard_library(
    stream: _UnfailingStream, level: LogLevel, shared: list[Processor], rendering: list[Processor]
) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_LEVELS[level])
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.WARNING))
