"""The password that both ends derive."""

import base64
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from provisiond.protocols.hub_password import derive_hub_password, password_message

KEY = bytes(range(32))


def test_the_message_names_the_hub_and_the_device():
    assert (
        password_message(hub_host="Hub.Local", device_id="Pump-7") == b"provisiond-hub-password-v1\nhub.local\nPump-7"
    )


def test_a_known_key_gives_a_known_password():
    password = derive_hub_password(KEY, hub_host="mosquitto.local", device_id="pump-7")
    assert password == "qmvcYMcozAXbqOo30tzsjqQLYEyUlYuKFa56TATFcfU="


@pytest.mark.parametrize("change", [{"hub_host": "other"}, {"device_id": "pump-8"}, {"key": b"x" * 32}])
def test_another_hub_device_or_key_has_another_password(change):
    given = {"key": KEY, "hub_host": "hub", "device_id": "pump-7"}
    assert derive_hub_password(**given) != derive_hub_password(**(given | change))


def test_the_shell_recipe_of_the_documentation_gives_the_same(tmp_path):
    if shutil.which("openssl") is None or shutil.which("xxd") is None:
        pytest.skip("openssl and xxd are not installed")
    text = Path(__file__).parents[2].joinpath("docs/hub-connectors.md").read_text()
    (recipe,) = re.findall(r"```sh\n(key=.*?)```", text, re.DOTALL)
    (tmp_path / "device.key").write_text(base64.b64encode(KEY).decode())
    ended = subprocess.run(["sh", "-c", recipe], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == derive_hub_password(KEY, hub_host="mosquitto.local", device_id="pump-7")
