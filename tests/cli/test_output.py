"""Forms of data."""

import json

import pytest

from provisiond.cli.output import OutputFormat, print_record, print_records, print_text

RECORD = {"id": "a", "deep": {"list": ["x", "y"], "flag": True, "empty": {}}, "number": 3, "evil": "a\tb\n\x1b[2J"}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            OutputFormat.TSV,
            "id\ta\ndeep.list\tx y\ndeep.flag\ttrue\ndeep.empty\t{}\nnumber\t3\nevil\ta\\tb\\n\\x1b[2J\n",
        ),
        (OutputFormat.NDJSON, json.dumps(RECORD) + "\n"),
        (OutputFormat.JSON, json.dumps(RECORD, indent=2) + "\n"),
        (None, json.dumps(RECORD, indent=2) + "\n"),
    ],
)
def test_a_record(capsys, output, expected):
    print_record(RECORD, output)
    assert capsys.readouterr().out == expected


def test_a_record_is_a_table_of_its_fields(capsys):
    print_record({"id": "a", "x": {"name": "b"}}, OutputFormat.TABLE)
    assert capsys.readouterr().out == "FIELD   VALUE\nid      a\nx.name  b\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OutputFormat.TABLE, "NAME  STATE\na     on\nbcde\n"),
        (OutputFormat.TSV, "a\ton\nbcde\t\n"),
        (OutputFormat.NDJSON, '{"n": "a", "s": {"t": "on"}}\n{"n": "bcde"}\n'),
    ],
)
def test_a_list(capsys, output, expected):
    print_records([{"n": "a", "s": {"t": "on"}}, {"n": "bcde"}], {"name": "n", "state": "s.t"}, output)
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("output", "expected"), [(OutputFormat.TABLE, "NAME\n"), (OutputFormat.JSON, "[]\n"), (OutputFormat.TSV, "")]
)
def test_an_empty_list(capsys, output, expected):
    print_records([], {"name": "n"}, output)
    assert capsys.readouterr().out == expected


def test_json_keeps_text_of_every_language_and_escapes_what_is_no_text(capsys):
    print_record({"a": "Küche \ud800"}, OutputFormat.NDJSON)
    out = capsys.readouterr().out
    assert out == '{"a": "Küche \\ud800"}\n'
    assert json.loads(out) == {"a": "Küche \ud800"}


def test_one_value_is_printed_as_it_is_unless_json_is_asked_for(capsys):
    print_text("abc", None)
    print_text("abc", OutputFormat.JSON)
    assert capsys.readouterr().out == 'abc\n"abc"\n'
