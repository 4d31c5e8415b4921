"""Every refusal has its paragraph."""

import re
from pathlib import Path

import pytest

from provisiond import errors
from provisiond.cli.refusals import find_refusal, refusals, render_document

PROJECT = Path(__file__).parents[2]
# A connector's `finding` is what was seen at a hub, not why a device was refused.
SOURCE = "\n".join(
    path.read_text() for path in sorted((PROJECT / "provisiond").rglob("*.py")) if path.parent.name != "hubs"
)
LITERAL = set(re.findall(r'finding(?:: str)?\s*=\s*"([a-z0-9-]+)"', SOURCE))
# Findings that are chosen at run time stand as strings in the code around.
CHOSEN = set(re.findall(r'"((?:challenge-other|challenge-|crl-|quote-pcr-)[a-z-]+)"', SOURCE))
PATTERNS = set(re.findall(r'finding=f"([^"]*\{[^"]*)"', SOURCE))


def documented():
    return refusals()["findings"]


@pytest.mark.parametrize("finding", sorted(LITERAL | CHOSEN))
def test_every_finding_in_the_code_has_a_paragraph(finding):
    assert finding in documented()


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_findings_that_are_put_together_have_paragraphs_too(pattern):
    form = re.compile(re.sub(r"\\\{.*?\\\}", "[a-z-]+", re.escape(pattern)))
    assert [finding for finding in documented() if form.fullmatch(finding)]


@pytest.mark.parametrize("finding", sorted(refusals()["findings"]))
def test_every_paragraph_is_of_a_finding_in_the_code(finding):
    made = {re.compile(re.sub(r"\\\{.*?\\\}", "[a-z-]+", re.escape(pattern))) for pattern in PATTERNS}
    assert finding in LITERAL | CHOSEN or any(form.fullmatch(finding) for form in made)


def test_every_code_has_a_paragraph():
    faults = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and isinstance(kind.__dict__.get("code"), int)
    ]
    codes = {str(kind.code) for kind in faults} | {"400207"}
    assert codes == set(refusals()["codes"])


def test_a_paragraph_says_what_it_means_what_brings_it_about_and_what_mends_it():
    for kind in refusals().values():
        for name, refusal in kind.items():
            assert all(text.endswith((".", "`.")) for text in (refusal.meaning, refusal.causes, refusal.mending)), name


def test_the_document_is_the_one_that_the_code_makes():
    assert (PROJECT / "docs/refusals.md").read_text() == render_document()


def test_a_finding_tells_more_than_its_code():
    expired = find_refusal(code=401002, outcome="refused", findings=["unheard-of", "sas-expired"])
    assert expired is documented()["sas-expired"]
    assert find_refusal(code=401002, outcome="refused", findings=[]) is refusals()["codes"]["401002"]
    assert find_refusal(code=None, outcome="disabled", findings=[]) is refusals()["outcomes"]["disabled"]
    assert find_refusal(code=None, outcome="assigned", findings=[]) is None
