"""The configuration with every setting at its default, its unit and its reason in a comment, as TOML."""

import json
import textwrap
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel

from provisiond.settings.broker import Listener
from provisiond.settings.hubs import HubSettings
from provisiond.settings.schema import Settings
from provisiond.settings.sources import FIRST_LINE, LAST_LINE

_WIDTH: Final = 100

_INTRODUCTION: Final = """\
Every setting is here at its default; leave out what you do not change.
Values with units are strings: "1500ms" "5s" "2m" "1h" "90d", "512B" "64KiB" "1MiB".
A relative path is relative to the directory of this file.
Environment variables go before this file: PROVISIOND_BROKER__LIMITS__INFLIGHT=50.
"""

_TLS_LISTENER: Final = """\
# A listener for devices on the network; `provisiond init` writes one with a certificate of its own:
# [[broker.listeners]]
# name = "devices"
# bind = "0.0.0.0:8883"
# tls = true
# cert_file = "tls/server.crt"
# key_file = "tls/server.key"
# client_certs = "optional"
"""


_OTHER_HUBS: Final = """\
# Hubs of other types; docs/hub-connectors.md tells their options:
# [[hubs]]
# name = "line-2"
# type = "mosquitto"
# host = "mosquitto.local"
# [hubs.options]
# admin_url = "mqtts://mosquitto.local:8883"
# username = "admin"
# password_file = "mosquitto-admin.password"
# ca_file = "ca/root.crt"
#
# [[hubs]]
# name = "other"
# type = "webhook"
# host = "hub.example"
# [hubs.options]
# url = "https://hub.example/provisioning"
# secret_file = "webhook.secret"
"""


_ENROLLMENTS: Final = """\
# Enrollments may stand in this file; `provisiond plan` shows what they change, and a start or SIGHUP applies them all,
# or none. What is taken out of the file is deleted. Keys and certificates stand in files of their own.
# [[enrollments]]
# registration_id = "sensor-7"
# attestation_type = "x509"
# certificate_file = "sensor-7.pem"
# device_id = "pump-3"
# initial_twin_tags = { site = "north" }
#
# [[enrollment_groups]]
# group_id = "line-4"
# attestation_type = "x509"
# certificate_file = "line-4-ca.pem"
# iot_hubs = ["local"]
# reprovision_policy = "never"
"""


def render_example() -> str:
    """The text of `config/provisiond.toml`, made from the schema so that it cannot fall behind it."""
    defaults = Settings()
    values = defaults.model_dump(mode="json")
    parts = [
        FIRST_LINE + "\n" + _comment(_INTRODUCTION.splitlines()),
        *_tables(Settings, values, ()),
        LAST_LINE + "\n",
    ]
    return "\n".join(parts)


def to_toml(value: Any) -> str:
    """A string, number, boolean or list of them as TOML; JSON's spelling of these is TOML's as well."""
    return json.dumps(value, ensure_ascii=False)


def _tables(schema: type[BaseModel], values: dict[str, Any], path: tuple[str, ...]) -> Iterable[str]:
    """The table at `path`, then the tables in it."""
    lines = []
    tables: list[str] = []
    for name, field in schema.model_fields.items():
        key = field.alias or name
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            tables += _tables(annotation, values[key], (*path, key))
        elif key in ("listeners", "hubs"):
            item = Listener if key == "listeners" else HubSettings
            tables += _repeated(item, values[key], (*path, key))
        elif key == "enrollments":
            tables.append(_ENROLLMENTS)
        elif key != "enrollment_groups":
            lines.append(_setting(key, values[key], field.description or ""))
    header = f"[{'.'.join(path)}]\n" if path else ""
    summary = _comment(textwrap.wrap(_first_paragraph(schema), _WIDTH)) if path else ""
    if lines:
        yield summary + header + "".join(lines)
    yield from tables


def _repeated(item: type[BaseModel], values: list[dict[str, Any]], path: tuple[str, ...]) -> Iterable[str]:
    for value in values:
        lines = [
            _setting(field.alias or name, value[field.alias or name], field.description or "")
            for name, field in item.model_fields.items()
        ]
        yield _comment([_first_paragraph(item)]) + f"[[{'.'.join(path)}]]\n" + "".join(lines)
    yield _TLS_LISTENER if item is Listener else _OTHER_HUBS


def _setting(key: str, value: Any, description: str) -> str:
    missing = {None: '""', "{}": "{}"}.get(None if value is None else str(value))
    line = f"{key} = {to_toml(value)}" if missing is None else f"# {key} = {missing}"
    return _comment(textwrap.wrap(description, _WIDTH)) + line + "\n"


def _comment(lines: Iterable[str]) -> str:
    return "".join(f"# {line}\n" for line in lines)


def _first_paragraph(schema: type[BaseModel]) -> str:
    return (schema.__doc__ or "").partition("\n\n")[0].replace("\n", " ").strip()
