"""The hubs of the configuration, as the decision sees them."""

from collections.abc import Sequence

from provisiond.model import Hub


class ConfiguredHubs:
    """`ports.HubDirectory` over the `[[hubs]]` of the configuration; replaced at a reload."""

    def __init__(self, hubs: Sequence[Hub]) -> None:
        self._hubs = tuple(hubs)

    def replace(self, hubs: Sequence[Hub]) -> None:
        """Take another set of hubs from the next decision on."""
        self._hubs = tuple(hubs)

    def snapshot(self) -> tuple[Hub, ...]:
        """Every linked hub."""
        return self._hubs
