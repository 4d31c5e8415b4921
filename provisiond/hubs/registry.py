"""From a hub's `type` to its connector: those built in, and those that other packages bring."""

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from provisiond.connectors import ConnectorFactory, HubConnector, HubOptions
from provisiond.errors import ConfigurationError

ENTRY_POINTS: Final = "provisiond.hubs"
"""The group in which a package registers a `ConnectorFactory` under the name of its type."""

EMBEDDED: Final = "embedded"
"""The type of provisiond itself: a registration is the identity, and nobody has to be told."""

_BUILT_IN: Final = {"mosquitto": "provisiond.hubs.mosquitto", "webhook": "provisiond.hubs.webhook"}


def hub_types() -> tuple[str, ...]:
    """Every type that a `[[hubs]]` entry may have."""
    found = {entry.name for entry in entry_points(group=ENTRY_POINTS)}
    return (EMBEDDED, *sorted(found.union(_BUILT_IN) - {EMBEDDED}))


def make_connector(hub_type: str, options: HubOptions) -> HubConnector:
    """Make the connector of a hub; it does nothing yet.

    Raises:
        ConfigurationError: there is no such type, its package cannot be imported, or an option cannot be used.
    """
    try:
        return _factory(hub_type)(options)
    except ConfigurationError as error:
        raise ConfigurationError(f'[[hubs]] "{options.name}": {error}') from error


def _factory(hub_type: str) -> ConnectorFactory:
    if hub_type in _BUILT_IN:
        built_in: ConnectorFactory = import_module(_BUILT_IN[hub_type]).make_connector
        return built_in
    entries = tuple(entry_points(group=ENTRY_POINTS, name=hub_type))
    if not entries:
        raise ConfigurationError(f'there is no hub type "{hub_type}"; there are: {", ".join(hub_types())}')
    if len({entry.value for entry in entries}) > 1:
        raise ConfigurationError(f'two packages bring a hub type "{hub_type}"; uninstall one of them')
    return _load(entries[0])


def _load(entry: EntryPoint) -> ConnectorFactory:
    try:
        loaded: object = entry.load()
    except Exception as error:  # a package of somebody else's may fail in any way when it is imported
        raise ConfigurationError(f'hub type "{entry.name}" ({entry.value}) cannot be loaded: {error!r}') from error
    if not callable(loaded):
        raise ConfigurationError(f'hub type "{entry.name}" ({entry.value}) is no function')
    return cast("ConnectorFactory", loaded)
