"""`provisiond --version`: what somebody who is asked for help needs to know."""

from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Final

from provisiond import __version__

_REPORTED_PACKAGES: Final = ("amqtt", "aiomqtt", "aiosqlite", "cryptography", "pyopenssl")


def describe_version() -> str:
    """One line: this program, Python, and the packages that matter."""
    parts = [f"Python {python_version()}"]
    for package in _REPORTED_PACKAGES:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} missing")
    return f"provisiond {__version__} ({', '.join(parts)})"
