"""What every table of the configuration file has in common."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


def name_in_file(field_name: str) -> str:
    """A field that holds seconds or bytes says so in its name here; in the file the unit stands in the value."""
    return field_name.removesuffix("_bytes").removesuffix("_s")


def _absolute(path: Path, info: ValidationInfo) -> Path:
    # A daemon's working directory says nothing to an operator; the place of the file that names the path does.
    base: Path | None = (info.context or {}).get("base_dir")
    return path if path.is_absolute() or base is None else base / path


FilePath = Annotated[Path, AfterValidator(_absolute)]
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
