"""Hub types of other packages."""

import sys
from importlib.metadata import EntryPoint

import pytest

from provisiond.connectors import HubOptions
from provisiond.errors import ConfigurationError
from provisiond.hubs import registry
from tests.fakes_hubs import FakeHub

OPTIONS = HubOptions(name="h", host="h.example")

PACKAGE = """
from provisiond.errors import ConfigurationError

def make_connector(options):
    if options.options:
        raise ConfigurationError("there are no options")
    from tests.fakes_hubs import FakeHub
    return FakeHub()

NOTHING = 7
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that brings hub types, as if it were installed."""
    (tmp_path / "acme_hub.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def bring(*values):
        entries = [EntryPoint(name="acme", value=value, group=registry.ENTRY_POINTS) for value in values]

        def find(*, group, name=None):
            return [entry for entry in entries if group == registry.ENTRY_POINTS and name in (None, entry.name)]

        monkeypatch.setattr(registry, "entry_points", find)

    yield bring
    sys.modules.pop("acme_hub", None)


def test_types_of_other_packages_are_listed_with_our_own(package):
    package("acme_hub:make_connector")
    assert registry.hub_types() == ("embedded", "acme", "mosquitto", "webhook")


def test_the_connector_of_another_package_is_made(package):
    package("acme_hub:make_connector")
    assert isinstance(registry.make_connector("acme", OPTIONS), FakeHub)


def test_what_its_options_lack_is_said_with_the_hubs_name(package):
    package("acme_hub:make_connector")
    with pytest.raises(ConfigurationError, match=r'\[\[hubs\]\] "h": there are no options'):
        registry.make_connector("acme", HubOptions(name="h", host="h", options={"a": 1}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("acme_hub:missing",), "cannot be loaded"),
        (("no_such_module:x",), "cannot be loaded"),
        (("acme_hub:NOTHING",), "is no function"),
        (("acme_hub:make_connector", "other:make_connector"), "two packages"),
        ((), "no hub type"),
    ],
)
def test_a_type_that_cannot_be_used_is_said_so(package, values, message):
    package(*values)
    with pytest.raises(ConfigurationError, match=message):
        registry.make_connector("acme", OPTIONS)
