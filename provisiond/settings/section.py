"""What every table of the configuration file has in common."""

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator


def name_in_file(field_name: str) -> str:
    """A field that holds seconds or bytes says so in its name here; in the file the unit stands in the value."""
    return field_name.removesuffix("_bytes").removesuffix("_s")


def why_no_path(value: Any) -> str | None:
    """Why a text cannot be the path of a file; None when it can, or is no text."""
    if value == "":  # which would be the directory of the configuration
        return "the path is empty; leave the key out for its default"
    return "a path holds no NUL" if isinstance(value, str) and "\0" in value else None


def _refuse_no_path(value: Any) -> Any:
    if reason := why_no_path(value):
        raise ValueError(reason)
    return value


def _absolute(path: Path, info: ValidationInfo) -> Path:
    # A daemon's working directory says nothing to an operator; the place of the file that names the path does.
    base: Path | None = (info.context or {}).get("base_dir")
    return path if path.is_absolute() or base is None else base / path


FilePath = Annotated[Path, BeforeValidator(_refuse_no_path), AfterValidator(_absolute)]
"""A path; a relative one is relative to the directory of the configuration file."""


class Section(BaseModel):
    """A table of the configuration file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=name_in_file,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python takes true for 1: `max_connections = true` would let one device in.
        if isinstance(value, bool) and _is_number(cls.model_fields[info.field_name or ""].annotation):
            raise ValueError(f"{str(value).lower()} is not a number")
        return value


def _is_number(annotation: Any) -> bool:
    return annotation is int or any(type(choice) is int for choice in get_args(annotation))
