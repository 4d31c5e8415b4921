"""The configuration: its schema, where it is read from, and what is said when it is wrong.

Precedence: flags, environment `PROVISIOND_SECTION__KEY`, `$CREDENTIALS_DIRECTORY/section.key`, TOML, defaults.
"""

from provisiond.settings.attestation import Attestation
from provisiond.settings.broker import Broker, Limits, Listener
from provisiond.settings.hubs import HubSettings
from provisiond.settings.loading import LoadedSettings, load_settings
from provisiond.settings.registration import RegistrationSettings
from provisiond.settings.schema import Log, Metrics, Settings

__all__ = [
    "Attestation",
    "Broker",
    "HubSettings",
    "Limits",
    "Listener",
    "LoadedSettings",
    "Log",
    "Metrics",
    "RegistrationSettings",
    "Settings",
    "load_settings",
]
