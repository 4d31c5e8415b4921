"""Finding the line of a key."""

import pytest

from provisiond.settings.location import find_line

TEXT = """\
config_version = 1
service.id_scope = "x"
[store]  # where
url = "sqlite:///a.db"

[[broker.listeners]]
bind = "a"
[[broker.listeners]]
name = "b"
  "bind" = "b"
[broker.limits]
inflight = 3
[[hubs]]
tags.'a b' = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("config_version",), 1),
        (("service", "id_scope"), 2),
        (("service",), 2),
        (("store",), 3),
        (("store", "url"), 4),
        (("broker", "listeners", 0, "bind"), 7),
        (("broker", "listeners", 1, "bind"), 10),
        (("broker", "listeners", 1), 8),
        (("broker", "limits", "inflight"), 12),
        (("hubs", 0, "tags", "a b"), 14),
        (("hubs", 0, "host"), 13),
        (("metrics", "bind"), None),
    ],
)
def test_a_key_is_found_where_it_is_set_or_where_its_table_begins(path, line):
    assert find_line(TEXT, path) == line
