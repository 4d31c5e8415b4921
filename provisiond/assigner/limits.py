"""Bounds of the work on hubs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignerLimits:
    """Bounds of the work on hubs.

    Args:
        call_timeout_s: for one call, a whole batch of identities included.
        poll_s: how often a queue is looked at without being woken: rows of another daemon, or of one that crashed.
        probe_interval_s: how often a hub that has nothing to do is asked whether it is there.
        arrival_interval_s: how often a hub is asked whether devices that have moved to it were seen there.
        arrivals: devices that are looked out for at a time; the others go by their deadline.
        reconcile_interval_s: how often a page of what should be in a hub is compared with what is.
        reconcile_page: registrations in such a page.
        attempts: tries for one device while the hub answers for others; then it is refused.
    """

    call_timeout_s: float = 10.0
    poll_s: float = 2.0
    probe_interval_s: float = 10.0
    arrival_interval_s: float = 2.0
    arrivals: int = 10_000
    reconcile_interval_s: float = 60.0
    reconcile_page: int = 200
    attempts: int = 8
