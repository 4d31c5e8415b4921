"""The document of the device library: its example runs as it stands there, and what it names is there."""

import asyncio
import base64
import re
import sys
from pathlib import Path

import pytest

import provisiond.device
from tests.enrollment_factory import PRIMARY_KEY, individual
from tests.running_service import ID_SCOPE, run_site

DOCUMENT = Path(__file__).parents[2] / "docs" / "device-library.md"


def example():
    (found,) = re.findall(r"<!-- example: register -->\n```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    return found


async def test_the_example_registers_a_device(tmp_path):
    async with run_site(tmp_path) as site:
        await site.admin.create_enrollment(individual("press-7"))
        (tmp_path / "device.key").write_bytes(base64.b64encode(PRIMARY_KEY))
        port = site.service.endpoint.port
        program = (
            example().replace('host="gateway.local"', f'host="localhost", port={port}').replace("0ne0LOCAL01", ID_SCOPE)
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", program),
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(provisiond.device.__file__).parents[2])},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(120):
            output, errors = await process.communicate()
    assert output.decode() == "gateway.local press-7\n", errors.decode()


def test_the_docstring_shows_the_same_example():
    lines = [line.strip() for line in example().splitlines() if line.strip()]
    docstring = {line.strip() for line in provisiond.device.__doc__.splitlines()}
    frame = {"import asyncio", "from pathlib import Path", "async def main() -> None:", "asyncio.run(main())"}
    assert [line for line in lines if line not in docstring | frame] == []


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`([A-Z][A-Za-z]+|[a-z]+_[a-z_]+)\(?[^`]*`", DOCUMENT.read_text())))
)
def test_what_the_document_names_is_there(name):
    members = {field for kind in vars(provisiond.device).values() for field in dir(kind)}
    parameters = {"total_s", "on_step", "user_name", "password", "dialect", "plaintext", "max_backoff_s"}
    fields = {"assigned_hub", "device_id", "hub_credential", "connect_s", "register_s", "tracking_id"}
    assert hasattr(provisiond.device, name) or name in members | parameters | fields
