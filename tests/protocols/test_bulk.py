"""Files of enrollments: every form, and what is wrong with some of them."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.errors import InvalidArgument
from provisiond.model import EnrollmentKind
from provisiond.protocols.bulk import BulkFormat, read_bulk
from provisiond.protocols.bulk_csv import read_csv, read_records
from provisiond.protocols.bulk_rows import RECORD_LIMIT_BYTES
from provisiond.protocols.bulk_writing import BulkWriter
from provisiond.protocols.service_api import enrollment_from_json
from tests.certificates import make_leaf
from tests.enrollment_factory import certificates, individual
from tests.fakes_decision import NOW

KEY = "a" * 22 + "=="
BODY = {"registrationId": "pump-1", "attestation": {"type": "symmetricKey"}}


def pieces(data, size=4096):
    data = data.encode() if isinstance(data, str) else data
    for line in data.splitlines(keepends=True):
        for start in range(0, len(line), size):
            yield line[start : start + size]


def pieces_of_lines(text, size):
    """As a file gives them: only a line feed ends a line."""
    for line in io.BytesIO(text.encode()):
        for start in range(0, len(line), size):
            yield line[start : start + size]


def read(data, form=BulkFormat.AUTO, size=4096):
    return list(read_bulk(pieces(data, size), form))


def bodies(data, form=BulkFormat.AUTO):
    rows = read(data, form) if isinstance(data, str | bytes) else list(read_bulk(data, form))
    assert not [row.error for row in rows if row.error]
    return [row.body for row in rows]


# --- CSV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_has_dotted_columns_and_any_usual_delimiter(delimiter):
    text = "registrationId,attestation.type,deviceId\npump-1,symmetricKey,d1\n".replace(",", delimiter)
    assert bodies(text) == [BODY | {"deviceId": "d1"}]


def test_cells_become_what_their_column_holds():
    header = "registrationId,attestation.type,capabilities.iotEdge,iotHubs,initialTwin.tags.line,initialTwin.tags.site,initialTwin.properties.desired"
    (body,) = bodies(f'{header}\npump-1,symmetricKey,TRUE,a b,4,north,"{{""x"": [1]}}"\n')
    assert body["capabilities"] == {"iotEdge": True}
    assert body["iotHubs"] == ["a", "b"]
    assert body["initialTwin"] == {"tags": {"line": 4, "site": "north"}, "properties": {"desired": {"x": [1]}}}


def test_a_byte_order_mark_quotes_and_carriage_returns_do_no_harm():
    assert bodies(b'\xef\xbb\xbf"registrationId","attestation.type"\r\n"pump-1","symmetricKey"\r\n\r\n') == [BODY]


def test_a_quoted_cell_may_have_newlines_and_lines_are_counted_on():
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    column = "attestation.x509.clientCertificates.primary.certificate"
    rows = read(f'registrationId,attestation.type,{column}\na,x509,"{pem}"\nb,x509\n')
    assert rows[0].body["attestation"]["x509"]["clientCertificates"]["primary"]["certificate"] == pem
    assert (rows[1].number, rows[1].line, rows[1].error) == (2, 5, "2 fields, but the header has 3")


def test_a_field_of_10_mb_is_one_bad_row_and_takes_no_memory():
    text = "registrationId,attestation.type\na,symmetricKey\nb," + '"' + "x" * 10_000_000 + '"' + "\nc,symmetricKey\n"
    rows = read(text, size=65536)
    assert [row.error is None for row in rows] == [True, False, True]
    assert f"a record may have {RECORD_LIMIT_BYTES}" in rows[1].error


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,symmetricKey,x", "3 fields, but the header has 2"),
        ('a,"sym"x', "not CSV"),
        ('"a', "never closed"),
        ('pump-1,"symmetricKey""', "never closed"),
        (b"\xff\xfe,x", "not UTF-8"),
    ],
)
def test_a_bad_row_is_told_and_the_others_are_read(row, said):
    row = row.encode() if isinstance(row, str) else row
    rows = read(b"registrationId,attestation.type\n" + row + b"\n")
    assert said in rows[0].error
    assert rows[0].line == 2


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("registrationId,atestation.type", "'atestation.type' is not known"),
        ("registrationId,deviceId,deviceId", "there twice"),
        ("deviceId,etag", "must name the columns"),
        ("registrationId^attestation.type", "form of the file cannot be told"),
        ("", "empty"),
        ("hello world", "form of the file cannot be told"),
        ("registrationId," + ",".join("abc" for _ in range(300)), "301 columns"),
    ],
)
def test_a_header_that_is_none_says_what_is_wrong(header, said):
    with pytest.raises(InvalidArgument, match=said.replace(".", r"\.")):
        read(header + ("\nx,y\n" if header else ""))


def test_utf_16_is_named():
    with pytest.raises(InvalidArgument, match="UTF-16"):
        read("registrationId\n".encode("utf-16"))


def test_a_tag_is_a_value_of_json_or_else_text():
    (row,) = read(
        "registrationId," + ",".join(f"initialTwin.tags.{name}" for name in "abcde") + "\na,4,007,NaN,-Infinity,true\n"
    )
    assert row.body["initialTwin"]["tags"] == {"a": 4, "b": "007", "c": "NaN", "d": "-Infinity", "e": True}


@pytest.mark.parametrize(
    ("columns", "cells", "said"),
    [
        ("initialTwin.tags,initialTwin.tags.a", "1,2", "is a value already"),
        ("initialTwin.tags", "nonsense", "not JSON"),
        ("capabilities.iotEdge", "maybe", "neither true nor false"),
    ],
)
def test_a_cell_that_is_none_says_so(columns, cells, said):
    (row,) = read(f"registrationId,{columns}\npump-1,{cells}\n")
    assert said in row.error


@pytest.mark.parametrize("size", [1, 2, 3, 4096])
@pytest.mark.parametrize(
    "cell", ['5" pipe', '5" x 6"', 'a""b"', '"x ""quoted"""', '"a,""b""\n,c"', '""', '"""\n"""', '"\n"']
)
def test_a_quote_opens_a_cell_only_where_the_cell_begins(cell, size):
    text = f"registrationId,initialTwin.tags.a,deviceId\npump-1,{cell},d\npump-2,{cell},\npump-3,x,{cell}\n"
    header, _, records = text.partition("\n")
    rows = list(read_csv([f"{header}\n".encode(), *pieces_of_lines(records, size)]))
    assert [(row.error, row.body["registrationId"]) for row in rows] == [(None, f"pump-{n}") for n in (1, 2, 3)]
    (expected,) = csv.reader([cell]) if cell != '""' else [[""]]
    assert rows[0].body.get("initialTwin", {"tags": {"a": ""}})["tags"]["a"] == ",".join(expected)


@given(
    st.lists(st.lists(st.text(alphabet='ab",;\n \t', max_size=6), min_size=2, max_size=2), max_size=6),
    st.integers(1, 9),
)
def test_what_csv_writes_is_split_into_the_same_records(cells, size):
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(cells)
    found = [record.cells for record in read_records(pieces_of_lines(buffer.getvalue(), size), ",")]
    assert found == [tuple(row) for row in cells]


def test_column_names_are_told_in_any_case():
    assert bodies("RegistrationID,Attestation.Type\npump-1,symmetricKey\n") == [BODY]


def test_lines_that_end_with_a_carriage_return_alone_are_named():
    with pytest.raises(InvalidArgument, match="carriage return"):
        list(read_bulk([b"registrationId,attestation.type\rpump-1,symmetricKey\r"], BulkFormat.AUTO))


def test_a_bad_cell_does_not_hide_whose_it_is():
    (row,) = read("registrationId,attestation.type,capabilities.iotEdge\npump-1,symmetricKey,maybe\n")
    assert row.body is None and row.id == "pump-1"


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_ndjson_is_an_object_a_line():
    text = json.dumps(BODY) + "\n\n" + json.dumps(BODY | {"deviceId": "x"})
    assert bodies(text) == [BODY, BODY | {"deviceId": "x"}]


def test_a_bad_line_of_ndjson_is_told_and_the_others_are_read():
    rows = read(json.dumps(BODY) + "\n{bad\n[1]\n" + '{"a": "' + "x" * 2_000_000 + '"}\n' + json.dumps(BODY) + "\n")
    assert [row.error is None for row in rows] == [True, False, False, False, True]
    assert rows[1].line == 2 and "not JSON" in rows[1].error
    assert "not a JSON object" in rows[2].error


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_in_pieces(size, indent):
    wanted = [BODY | {"deviceId": f"d-{n}", "initialTwin": {"tags": {"n": n, "text": ']},[{"é'}}} for n in range(20)]
    rows = read(json.dumps(wanted, indent=indent, ensure_ascii=False), size=size)
    assert [row.body for row in rows] == wanted


def test_lines_of_an_array_are_counted():
    rows = read("[\n\n" + json.dumps(BODY) + ",\n" + json.dumps(BODY) + "\n]\n")
    assert [row.line for row in rows] == [3, 4]


@pytest.mark.parametrize(
    ("text", "good", "said"),
    [
        ('[{"registrationId": "a"}', 1, "cut off"),
        ('[{"registrationId": "a"}, {"regis', 1, "nothing after it can be read"),
        ('[{"registrationId": "a"} {"registrationId": "b"}]', 1, "comma is missing"),
        ("[1]", 0, "not a JSON object"),
        ("[" * 100_000, 0, "nested too deeply"),
        ('[{"registrationId": "a"}]\n[{"registrationId": "b"}]\n', 1, "more after the end"),
        ('{"enrollments": [{"registrationId": "a"}], "mode": "delete"}', 1, "'delete' is not imported"),
        ('{"enrollments": [{"registrationId": "a"}],', 1, "cut off"),
        ('{"enrollments": [{"registrationId": "a"}]', 1, "a comma or a brace is missing"),
        ('{"enrollments": [{"registrationId": "a"', 0, "nothing after it can be read"),
    ],
)
def test_an_array_that_is_damaged_says_where(text, good, said):
    rows = read(text)
    assert len([row for row in rows if row.error is None]) == good
    assert said in rows[-1].error


def test_a_body_may_have_both_lists():
    text = json.dumps({"enrollmentGroups": [{"enrollmentGroupId": "g"}], "enrollments": [BODY], "mode": "create"})
    assert bodies(text) == [{"enrollmentGroupId": "g"}, BODY]


def test_a_line_that_was_cut_off_does_not_make_ndjson_anything_else():
    good = json.dumps(BODY)
    rows = read(good[:-9] + "}\n" + good + "\n" + good[:-9])
    assert [row.error is None for row in rows] == [False, True, False]
    long = json.dumps(BODY | {"initialTwin": {"tags": {"a": "x" * 80_000}}})
    assert bodies(pieces(long + "\n" + good + "\n", 65536)) == [json.loads(long), BODY]


def test_hubs_of_azure_that_are_not_linked_are_named_and_left_out():
    record = BODY | {"iotHubs": ["a.azure-devices.net", "B.azure-devices.net"], "allocationPolicy": "hashed"}
    (row,) = read_bulk(pieces(json.dumps([record])), BulkFormat.AUTO, linked_hubs={"b.azure-devices.net"})
    assert row.body["iotHubs"] == ["B.azure-devices.net"] and "a.azure-devices.net" in row.notes[0]
    (row,) = read(json.dumps({"enrollments": [BODY | {"iotHubHostName": "a.azure-devices.net"}]}))
    assert row.body == BODY | {"iotHubs": None, "allocationPolicy": None}


def test_an_azure_bulk_body_is_read_and_what_is_only_azures_is_named():
    record = BODY | {"iotHubHostName": "hub.azure", "credentialPolicyName": "p"}
    (row,) = read(json.dumps({"mode": "create", "enrollments": [record]}))
    assert row.body == BODY | {"iotHubs": ["hub.azure"], "allocationPolicy": "static"}
    assert "credentialPolicyName" in row.notes[0]
    (row,) = read(json.dumps({"enrollmentGroups": [{"enrollmentGroupId": "g"}], "mode": "update"}, indent=1))
    assert row.body == {"enrollmentGroupId": "g"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"mode": "delete", "enrollments": []}', "'delete' is not imported"),
        ('{\n"mode": "create"}', "no .enrollments. list"),
        ('{\n"mode" "create"}', "not JSON"),
        ('"text"', "form of the file cannot be told"),
    ],
)
def test_what_is_no_bulk_body_is_refused(text, said):
    with pytest.raises(InvalidArgument, match=said):
        read(text)


# --- other services --------------------------------------------------------------------------------------------------


def test_things_of_aws_become_enrollments_with_tags():
    lines = [
        {"ThingName": "pump-1", "SerialNumber": "123", "CSR": "-----BEGIN"},
        {
            "thingName": "pump-2",
            "attributes": {"site": "north"},
            "thingTypeName": "pump",
            "thingArn": "arn",
            "version": 1,
        },
        {"thingName": "pump-3", "certificatePem": "PEM"},
        {"thingTypeName": "nobody"},
    ]
    rows = read("\n".join(map(json.dumps, lines)))
    assert rows[0].body == BODY | {"initialTwin": {"tags": {"SerialNumber": "123"}}}
    assert "CSR is not imported" in rows[0].notes and "a key was generated" in rows[0].notes[-1]
    assert rows[1].body["initialTwin"] == {"tags": {"site": "north", "thingTypeName": "pump"}}
    assert rows[2].body["attestation"]["x509"]["clientCertificates"]["primary"]["certificate"] == "PEM"
    assert rows[3].error == "it has neither a thingName nor a clientId"
    for text in (json.dumps(lines[:1]), json.dumps({"things": lines[:1]}, indent=1), json.dumps({"things": lines[:1]})):
        for form in (BulkFormat.AUTO, BulkFormat.AWS):
            assert [(row.body, row.notes) for row in read(text, form)] == [(rows[0].body, rows[0].notes)]


def test_an_aws_client_id_is_the_things_name_and_no_secret_becomes_a_tag():
    line = {"mqtt-context": {"clientId": "pump-1", "password": "secret!"}, "privateKey": "secret!", "site": "north"}
    (row,) = read(json.dumps(line), BulkFormat.AWS)
    assert row.body == BODY | {"initialTwin": {"tags": {"site": "north"}}}
    assert "privateKey is not imported" in row.notes and "secret!" not in str(row)


def test_cumulocitys_bulk_csv_becomes_enrollments():
    text = (
        "ID;CREDENTIALS;AUTH_TYPE;TYPE;NAME;PATH\n"
        f"pump-1;{KEY};BASIC;pump;Pump one;/line\npump-2;secret!;BASIC;;;\npump-3;;CERTIFICATES;;;\n"
    )
    rows = read(text)
    assert rows[0].body == {
        "registrationId": "pump-1",
        "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}},
        "initialTwin": {"tags": {"type": "pump", "name": "Pump one"}},
    }
    assert rows[0].notes == ("PATH is not imported",)
    assert rows[1].body["attestation"] == {"type": "symmetricKey"} and "password" in rows[1].notes[0]
    assert "secret!" not in str(rows[1])
    assert "enrollment-group" in rows[2].error and rows[2].id == "pump-3"


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [BulkFormat.CSV, BulkFormat.NDJSON, BulkFormat.JSON, BulkFormat.AZURE])
def test_what_is_written_is_read_back(form):
    enrollments = [
        individual("pump-1", device_id="d", iot_hubs=("local", "other"), iot_edge=True),
        individual('-pump,"2', certificates(make_leaf("a"), make_leaf("b")), device_information={"x": "ü\n;"}),
        individual("pump-3", enabled=False),
    ]
    writer = BulkWriter(form, EnrollmentKind.INDIVIDUAL, show_keys=True)
    text = writer.begin() + "".join(map(writer.add, enrollments)) + writer.end()
    read_back = [enrollment_from_json(EnrollmentKind.INDIVIDUAL, body, now=NOW) for body in bodies(text)]
    for before, after in zip(enrollments, read_back, strict=True):
        assert (before.id, before.attestation, before.device_id) == (after.id, after.attestation, after.device_id)
        assert (before.iot_hubs, before.iot_edge) == (after.iot_hubs, after.iot_edge)
        assert (before.provisioning_status, before.device_information) == (
            after.provisioning_status,
            after.device_information,
        )


@pytest.mark.parametrize("form", [BulkFormat.CSV, BulkFormat.NDJSON, BulkFormat.JSON, BulkFormat.AZURE])
def test_an_empty_export_is_read_back_as_nothing(form):
    writer = BulkWriter(form, EnrollmentKind.INDIVIDUAL, show_keys=True)
    text = writer.begin() + writer.end()
    if text:
        assert bodies(text, form) == []


@given(st.binary(max_size=400), st.sampled_from(BulkFormat), st.integers(1, 50))
def test_any_bytes_give_rows_or_a_documented_error(data, form, size):
    try:
        for row in read_bulk(pieces(data, size), form):
            assert (row.body is None) == (row.error is not None)
    except InvalidArgument:
        pass


@given(st.lists(st.dictionaries(st.text(), st.text()), max_size=5), st.integers(1, 50))
def test_any_array_is_read_whatever_the_pieces(value, size):
    rows = list(
        read_bulk(pieces(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), size), BulkFormat.JSON)
    )
    assert len(rows) == len(value)


@pytest.mark.parametrize("text", ["\n  \r\n", "\n\n"])
def test_blank_lines_at_the_beginning_do_not_hide_the_form(text):
    line = json.dumps(BODY)
    assert bodies(f"{text}{line}\n{text}{line}") == [BODY, BODY]
    assert [row.line for row in read(f"\n\n{line}\n")] == [3]
    assert bodies(f"{text}[{line}]") == [BODY]
    assert bodies('\n{"thingName": "t-1"}\n')[0]["registrationId"] == "t-1"
    with pytest.raises(InvalidArgument, match="the file is empty"):
        read(text)
