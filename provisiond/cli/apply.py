"""`provisiond apply`: make the enrollments what the configuration declares."""

import asyncio
from typing import Final

from provisiond.cli import plan as planning
from provisiond.cli.enrolled_records import Yes
from provisiond.cli.output import Output, confirm, note
from provisiond.cli.plan import Adopt
from provisiond.cli.session import Config

EXAMPLE: Final = "Example: provisiond -c /etc/provisiond/provisiond.toml apply --yes"


def apply(adopt: Adopt = False, yes: Yes = False, output: Output = None, config: Config = None) -> None:
    """Make the enrollments what the configuration declares, all of them or nothing; the daemon sees it at once."""
    confirm("Make the enrollments what the configuration declares? `provisiond plan` shows what changes.", yes=yes)
    steps, hubs = asyncio.run(planning.carry_out(config, adopt=adopt))
    planning.show(steps, hubs, output)
    if steps:
        note("1 enrollment changed" if len(steps) == 1 else f"{len(steps)} enrollments changed")
