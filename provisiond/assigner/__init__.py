"""The outbox: what decisions have left for the hubs to do, done.

assigner.py   one task a hub, and the count of who has how many
worker.py     one hub: the loop, retirement, probes, what others hear of it
maker.py      what waits to be made
arrivals.py   who has come from another hub, and was seen at this one
reconciler.py what the hub has forgotten
desk.py       the connector under its deadline, the store, the words for the audit log
limits.py     bounds
health.py     the circuit breaker
pace.py       how long the queue is, and what waiting devices are told
"""

from provisiond.assigner.assigner import Assigner
from provisiond.assigner.limits import AssignerLimits

__all__ = ["Assigner", "AssignerLimits"]
