"""`[[hubs]]`: the hubs that devices are assigned to, and their connectors."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, model_validator

from provisiond.connectors import HubConnector, HubOptions
from provisiond.hubs.registry import EMBEDDED, hub_types, make_connector
from provisiond.model import Hub
from provisiond.settings.addresses import check_host_and_port
from provisiond.settings.problems import Misplaced
from provisiond.settings.section import Section, why_no_path
from provisiond.settings.values import Name


def _hub_type(name: str) -> str:
    known = hub_types()
    if name not in known:
        raise ValueError(f'"{name}" is no hub type; there are: {", ".join(known)}')
    return name


class HubSettings(Section):
    """A hub that devices are assigned to."""

    name: Name = Field(description="Unique name; enrollments and the command line use it.")
    type: Annotated[str, AfterValidator(_hub_type)] = Field(
        default=EMBEDDED,
        description='"embedded": provisiond itself is the hub. "mosquitto", "webhook", or what another package brings.',
    )
    host: Annotated[str, AfterValidator(check_host_and_port)] = Field(
        description="What devices are told to connect to; unique."
    )
    weight: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="Share of new devices, 1 to 1000.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="What the type needs to know besides: a table [hubs.options] below its hub. The embedded hub needs "
        "nothing.",
    )
    _base_dir: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _check_options(self, info: ValidationInfo) -> Self:
        self._base_dir = (info.context or {}).get("base_dir") or Path()
        if self.is_embedded and self.options:
            raise ValueError('a hub of type "embedded" has no options')
        for name, value in self.options.items():
            if name.endswith("_file") and (reason := why_no_path(value)):
                raise Misplaced(reason, ("options", name))
        return self

    def __eq__(self, other: object) -> bool:
        # Where the file lies is no setting.
        return isinstance(other, HubSettings) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def is_embedded(self) -> bool:
        """Whether provisiond itself is the hub."""
        return self.type == EMBEDDED

    def to_hub(self) -> Hub:
        """The hub as decisions see it; any but the embedded one has to be called before a device is told about it."""
        return Hub(
            name=self.name,
            host=self.host,
            type=self.type,
            weight=self.weight,
            immediate=self.is_embedded,
            # An option that a hub of any type may have.
            knows_certificates=self.options.get("x509") != "password",
        )

    def seen_files(self) -> tuple[tuple[str, int, int], ...]:
        """What tells whether a file that an option `..._file` names has been changed: path, time in ns, inode.

        One that is not there is left out: `to_connector` says what is wrong with it.
        """
        seen = []
        for file in self.option_files():
            with suppress(OSError):
                status = file.stat()
                seen.append((str(file), status.st_mtime_ns, status.st_ino))
        return tuple(seen)

    def option_files(self) -> tuple[Path, ...]:
        """The files that options `..._file` name, there or not."""
        values = (value for name, value in sorted(self.options.items()) if name.endswith("_file"))
        return tuple(self._base_dir / value for value in values if isinstance(value, str))

    def to_connector(self) -> HubConnector:
        """Its connector, which does nothing yet; not for the embedded one, which needs none.

        Raises:
            ConfigurationError: an option, or a file that it names, cannot be used.
        """
        options = HubOptions(name=self.name, host=self.host, options=self.options, base_dir=self._base_dir)
        return make_connector(self.type, options)
