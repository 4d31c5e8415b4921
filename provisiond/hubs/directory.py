"""The linked hubs as decisions see them: what the configuration says, and what has been seen since."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from provisiond.model import Hub, HubView

LATENCY_DEADBAND: Final = 0.1
"""Part by which a latency must change before decisions hear of it: noise must not move devices."""


class ConfiguredHubs:
    """`ports.HubDirectory` over the `[[hubs]]` of the configuration; replaced at a reload.

    Loads are counted here between two counts of the store's, so that a burst of registrations does not all see the
    same least loaded hub.
    """

    def __init__(self, hubs: Sequence[Hub]) -> None:
        self._hubs = tuple(hubs)
        self._views: dict[str, HubView] = {}
        self._assigned: dict[str, int] = {}
        self._snapshot: tuple[Hub, ...] | None = None

    def replace(self, hubs: Sequence[Hub]) -> None:
        """Take another set of hubs from the next decision on."""
        self._hubs = tuple(hubs)
        self._snapshot = None

    def snapshot(self) -> tuple[Hub, ...]:
        """Every linked hub, with its health, latency and load."""
        if self._snapshot is None:
            self._snapshot = tuple(self._seen(hub) for hub in self._hubs)
        return self._snapshot

    def see(self, name: str, view: HubView) -> None:
        """Take over what was seen of a hub."""
        before = self._views.get(name)
        if before is not None and _is_noise(before.latency_ms, view.latency_ms):
            view = replace(view, latency_ms=before.latency_ms)
        if view != before:
            self._views[name] = view
            self._snapshot = None

    def count(self, assigned: Mapping[str, int]) -> None:
        """Take over how many devices each hub has, by name."""
        self._assigned = dict(assigned)
        self._snapshot = None

    def place(self, *, before: str | None, after: str | None) -> None:
        """Count a device on another hub until the next `count`."""
        if before == after:
            return
        for name, change in ((before, -1), (after, 1)):
            if name is not None:
                self._assigned[name] = max(0, self._assigned.get(name, 0) + change)
        self._snapshot = None

    def _seen(self, hub: Hub) -> Hub:
        view = self._views.get(hub.name)
        assigned_count = self._assigned.get(hub.name, 0)
        if hub.immediate:  # in this process: it is there when we are, and takes no time to reach
            return replace(hub, assigned_count=assigned_count, latency_ms=0.0)
        if view is None:
            return replace(hub, assigned_count=assigned_count)
        return replace(
            hub,
            assigned_count=assigned_count,
            healthy=view.healthy,
            latency_ms=view.latency_ms,
            retry_after_s=view.retry_after_s,
        )


def _is_noise(before_ms: float | None, after_ms: float | None) -> bool:
    if before_ms is None or after_ms is None:
        return False
    return abs(after_ms - before_ms) <= before_ms * LATENCY_DEADBAND
