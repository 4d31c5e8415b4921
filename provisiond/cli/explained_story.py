"""An explanation as a person reads it: the answer first, then how it came about, then what to do."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from provisiond.cli.output import plain
from provisiond.model import Outcome

_ASSIGNED: Final = (Outcome.ASSIGNED, Outcome.ASSIGNING)


def print_story(body: Mapping[str, Any], *, would: bool) -> None:
    """For a person: the answer first, then how it came about, then what to do."""
    bold, plain_again = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    print(f"{bold}{plain(_headline(body, would=would))}{plain_again}")
    for name in ("at", "event", "actor", "trackingId", "code", "reason"):
        if name in body:
            print(f"  {name:<12} {plain(str(body[name]))}")
    _print_enrollments(body)
    if body["trace"]:
        print(f"\n{bold}checks{plain_again}")
    for check in _without_repetition(body["trace"]):
        clause = f"  [{check['clause']}]" if check["clause"] else ""
        print(plain(f"  {'ok  ' if check['passed'] else 'FAIL'}  {check['check']}: {check['finding']}{clause}"))
    _print_hubs(body, bold, plain_again)
    if "advice" in body:
        print(f"\n{bold}what it means{plain_again}")
        for name in ("meaning", "causes", "mending"):
            print(f"  {name:<8} {body['advice'][name]}")


def _without_repetition(trace: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The checks but for one that failed and is told again below under the name of the finding, which docs explain."""
    for check, following in zip_longest(trace, trace[1:]):
        if check["passed"] or following is None or following["finding"] != check["finding"]:
            yield check


def _print_enrollments(body: Mapping[str, Any]) -> None:
    if "enrollments" not in body and "enrollmentId" in body:
        print(plain(f"  enrollment   {body['enrollmentKind']} {body['enrollmentId']}"))
    for assumption in body.get("assumptions", ()):
        print(f"  assumed      {assumption}")
    for index, enrollment in enumerate(body.get("enrollments", ())):
        label = "enrollments" if index == 0 else ""
        text = "{kind} {id} ({attestationType}, {provisioningStatus}, by {origin})".format_map(enrollment)
        print(f"  {label:<12} {plain(text)}")
    if not body.get("enrollments", True) and "registration" not in body:
        print("  enrollments  none claims this request")
    for departure in body.get("leaving", ()):
        seen = ", or until it was seen at its new hub" if departure["orOnceSeenAtItsNewHub"] else ""
        print(plain(f"  leaving      {departure['hub']}, where it is let in until {departure['until']}{seen}"))


def _print_hubs(body: Mapping[str, Any], bold: str, plain_again: str) -> None:
    if not any(hub["score"] is not None for hub in body.get("hubs", ())):
        return
    print(f"\n{bold}hubs{plain_again}")
    for hub in body["hubs"]:
        score = "not a candidate" if hub["score"] is None else f"score {hub['score']:.6g}"
        mark = "->" if hub["name"] == body.get("hub") else "  "
        state = "" if hub["healthy"] else ", did not answer when it was last asked"
        state += "" if hub["eligible"] else ", drains"
        print(plain(f"  {mark} {hub['name']} ({hub['host']}, weight {hub['weight']}{state}): {score}"))


def _headline(body: Mapping[str, Any], *, would: bool) -> str:
    who, outcome = body.get("registrationId") or body.get("enrollmentId", "the request"), body["outcome"]
    verb = "would be" if would else "was"
    if outcome in _ASSIGNED:
        where = f" to {body['hub']}" if body.get("hub") else ""
        return f"{who} {verb} {outcome}{where}"
    if outcome == Outcome.REFUSED and any(check["check"] == "evidence-not-given" for check in body["trace"]):
        return f"whether {who} would be assigned cannot be told"
    if outcome == Outcome.REFUSED:
        return f"{who} {verb} refused with {body.get('code')}"
    if outcome == Outcome.FAILED and "code" in body:
        return f"{who} {'would fail' if would else 'failed'} with {body['code']}"
    if outcome == Outcome.PENDING:
        return f"{who} {'would wait' if would else 'waits'} for an operator to accept it"
    return f"{who}: {body['event']}" if outcome == "done" else f"{who} {verb} {outcome}"
