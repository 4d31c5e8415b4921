"""The MQTT edge: listeners, the embedded broker, access rules."""
