"""provisiond: a device provisioning service for your own gateway."""

__version__ = "0.1.0"
