"""The work on hubs as the daemon runs it: connectors of the configuration, the assigner, and custom allocation."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

from provisiond.assigner import Assigner
from provisiond.connectors import HubConnector
from provisiond.hubs.claims import FileClaims
from provisiond.hubs.custom_allocation import WebhookAllocator
from provisiond.hubs.directory import ConfiguredHubs
from provisiond.hubs.http import HttpClient
from provisiond.ports import CustomAllocator, HubObserver, OutboxStore
from provisiond.settings import HubSettings, Settings
from provisiond.system import SystemClock, SystemEntropy, background


@dataclass(frozen=True, slots=True, kw_only=True)
class _Configured:
    settings: HubSettings
    files: tuple[tuple[str, int, int], ...]
    connector: HubConnector


class HubWork:
    """Everything that calls hubs. `async with` it: leaving ends the work; rows that wait are found again.

    Raises (making it):
        ConfigurationError: an option of a hub, or a file it names, cannot be used.
    """

    def __init__(self, settings: Settings, *, store: OutboxStore, hubs: ConfiguredHubs, observer: HubObserver) -> None:
        self._configured: dict[str, _Configured] = {}
        self._client = HttpClient(ca_file=settings.registration.webhook_ca_file)
        self._connectors = self._connect(settings)
        self._resources = AsyncExitStack()
        self.allocator: CustomAllocator = WebhookAllocator(self._client)
        self.assigner = Assigner(
            store=store,
            board=hubs,
            claims=FileClaims(settings.service.state_dir / "locks"),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            observer=observer,
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._client.aclose)
            stack.push_async_callback(self.assigner.close)
            await stack.enter_async_context(background(self.assigner.run(self._connectors), name="assigner"))
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    def reload(self, settings: Settings) -> None:
        """Work on the hubs of another configuration; a hub that is configured as it was is not disturbed.

        Its files belong to that: a password that was changed is taken over.

        Raises:
            ConfigurationError: an option of a hub cannot be used; everything is as it was.
        """
        self.assigner.adopt(self._connect(settings))

    def _connect(self, settings: Settings) -> Mapping[str, HubConnector]:
        configured: dict[str, _Configured] = {}
        for hub in settings.hubs:
            if hub.is_embedded:
                continue
            known, files = self._configured.get(hub.name), hub.seen_files()
            if known is None or (known.settings, known.files) != (hub, files):
                known = _Configured(settings=hub, files=files, connector=hub.to_connector())
            configured[hub.name] = known
        self._configured = configured
        return {name: known.connector for name, known in configured.items()}
