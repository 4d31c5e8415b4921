"""What `simulate` prints, and how it exits."""

import json
from typing import Any, Final

from provisiond.cli.exit_codes import ExitCode, print_error
from provisiond.cli.output import OutputFormat, note, plain, print_record
from provisiond.device.client import RegistrationResult, Step
from provisiond.device.errors import CannotConnect, DeviceError, Refused, TimedOut
from provisiond.device.simulator import FleetOutcome, FleetReport

_PERCENTILES: Final = (50, 95, 99)


class Story:
    """Tells a device's steps: on standard output, or beside it when that is for a record.

    Args:
        output: form of the record; None for none.
    """

    def __init__(self, output: OutputFormat | None) -> None:
        self._output = output

    def tell(self, step: Step, detail: str) -> None:
        """One line a step, such as `assigned (gateway.local, sensor-7)`."""
        line = plain(f"{step.value} ({detail})")
        if self._output is None:
            print(line, flush=True)
        else:
            note(line)

    def end(self, result: RegistrationResult) -> None:
        """The assignment, when a record is wanted."""
        if self._output is not None:
            print_record(_assignment(result), self._output)


def _assignment(result: RegistrationResult) -> dict[str, Any]:
    return {
        "registrationId": result.registration_id,
        "status": "assigned",
        "substatus": result.substatus,
        "assignedHub": result.assigned_hub,
        "deviceId": result.device_id,
        "payload": result.payload,
        "challenged": result.challenged,
        "polls": result.polls,
        "connectMs": round(1000 * result.connect_s, 1),
        "registerMs": round(1000 * result.register_s, 1),
    }


def print_failure(error: DeviceError) -> ExitCode:
    """Say what went wrong, print the error JSON of a refusal on standard output, and give the exit code."""
    if isinstance(error, Refused):
        print(json.dumps(error.body), flush=True)
    print_error(plain(str(error)))
    match error:
        case Refused():
            return ExitCode.REFUSED
        case CannotConnect():
            return ExitCode.UNAVAILABLE
        case TimedOut():
            return ExitCode.TRY_LATER
        case _:
            return ExitCode.FAILED


def fleet_figures(report: FleetReport) -> dict[str, Any]:
    """Counts by outcome, latencies in ms, rate, and what went wrong."""
    latencies = {f"p{percent}Ms": _rounded(report.percentile_ms(percent)) for percent in _PERCENTILES}
    return {
        "count": report.outcomes.total(),
        **{outcome.value: report.outcomes[outcome] for outcome in FleetOutcome},
        **latencies,
        "perSecond": round(report.assigned_per_s, 1),
        "elapsedSeconds": round(report.elapsed_s, 3),
        "errors": [{"count": count, "error": reason} for reason, count in report.reasons],
    }


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 1)


def fleet_exit_code(report: FleetReport) -> ExitCode:
    """0 only if every device was assigned."""
    if report.outcomes[FleetOutcome.ASSIGNED] == report.outcomes.total():
        return ExitCode.OK
    if report.outcomes[FleetOutcome.REFUSED]:
        return ExitCode.REFUSED
    return ExitCode.UNAVAILABLE if report.outcomes[FleetOutcome.UNREACHABLE] else ExitCode.FAILED
