"""JSON Schema of the native protocol's messages, for whoever writes a client in another language."""

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from provisiond.protocols.native_models import AnswerMessage, RegisterMessage, ReplyMessage, StatusMessage

_MESSAGES: Final = (RegisterMessage, AnswerMessage, StatusMessage, ReplyMessage)


class _AsOnTheWire(GenerateJsonSchema):
    """A member's name says what a title made from it would say; what is absent is left out, never null."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False

    def nullable_schema(self, schema: Any) -> Any:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> Any:
        inner = super().default_schema(schema)
        return {name: value for name, value in inner.items() if name != "default" or value is not None}


def generate_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the four messages; each is a definition under `$defs`."""
    _, schema = models_json_schema(
        [(message, "validation") for message in _MESSAGES],
        schema_generator=_AsOnTheWire,
        title="provisiond native protocol, version 1",
        description="Payloads on provisiond/v1/{registrationId}/req/{op}/{rid} and …/res/{op}/{rid}.",
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "anyOf": [{"$ref": f"#/$defs/{message.__name__}"} for message in _MESSAGES],
    }
