"""The hubs of a configuration against those that a daemon has last taken over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provisiond.admin.declared import PlannedAction
from provisiond.model import JSONValue

Described = Mapping[str, Mapping[str, JSONValue]]
"""Hubs by name: type, host, weight, and a digest of the options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStep:
    """What becomes of a hub when the daemon takes the configuration over.

    Args:
        before, after: as described; empty when there is none.
    """

    action: PlannedAction
    name: str
    before: Mapping[str, JSONValue]
    after: Mapping[str, JSONValue]

    @property
    def differences(self) -> tuple[str, ...]:
        """Names of what is not the same."""
        return tuple(sorted(key for key in {*self.before, *self.after} if self.before.get(key) != self.after.get(key)))


def compare_hubs(before: Described, after: Described) -> Sequence[HubStep]:
    """The steps from one to the other: what is added and changed in the order of the configuration, then what goes."""
    steps = []
    for name, hub in after.items():
        known = before.get(name)
        if known is None:
            steps.append(HubStep(action=PlannedAction.CREATE, name=name, before={}, after=hub))
        elif known != hub:
            steps.append(HubStep(action=PlannedAction.UPDATE, name=name, before=known, after=hub))
    gone = [name for name in before if name not in after]
    return [*steps, *(HubStep(action=PlannedAction.DELETE, name=name, before=before[name], after={}) for name in gone)]
