"""The hub that is this service: devices with their twins, messages and methods, and the operators who talk to them.

hub.py               EmbeddedHub: what a device says, and what becomes of it
judge.py             who may be which device
sessions.py          who is connected
twins.py  cloud_messages.py  commands.py        what operators do to a device
operator_desk.py  operator_token.py             operators over MQTT, and what they prove themselves with
audience.py          who listens to telemetry and events
departures.py        devices that have moved
background.py        work beside the messages, that ends with its owner
"""
