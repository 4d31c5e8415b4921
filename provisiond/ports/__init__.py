"""Every side effect, as a Protocol: what the use cases ask of the world.

Adapters (`store/`, `broker/`, `hubs/`) implement these; tests bring small fakes.
"""

from provisiond.ports.admin_store import AdminStore, BulkStore, EnrollmentChange, Staging
from provisiond.ports.decision_store import (
    DecisionStore,
    FactsQuery,
    PendingLimits,
    StoredChallenge,
    StoredFacts,
    Write,
)
from provisiond.ports.device_store import DeviceStore
from provisiond.ports.edge import Gatekeeper, Transport
from provisiond.ports.hubs import CustomAllocator, HubBoard, HubDirectory
from provisiond.ports.machine import Clock, Entropy
from provisiond.ports.observer import HubObserver, Observer
from provisiond.ports.outbox import HubClaims, Outbox, OutboxStore

__all__ = [
    "AdminStore",
    "BulkStore",
    "Clock",
    "CustomAllocator",
    "DecisionStore",
    "DeviceStore",
    "EnrollmentChange",
    "Entropy",
    "FactsQuery",
    "Gatekeeper",
    "HubBoard",
    "HubClaims",
    "HubDirectory",
    "HubObserver",
    "Observer",
    "Outbox",
    "OutboxStore",
    "PendingLimits",
    "Staging",
    "StoredChallenge",
    "StoredFacts",
    "Transport",
    "Write",
]
