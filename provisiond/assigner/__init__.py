"""The outbox: what decisions have left for the hubs to do, done.

assigner.py   one task a hub, and the count of who has how many
worker.py     one hub: make, retire, reconcile, probe
health.py     the circuit breaker
pace.py       how long the queue is, and what waiting devices are told
"""

from provisiond.assigner.assigner import Assigner
from provisiond.assigner.worker import AssignerLimits

__all__ = ["Assigner", "AssignerLimits"]
