"""`provisiond --version`: what somebody who is asked for help needs to know."""

from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from sqlite3 import sqlite_version
from typing import Final

from cryptography.hazmat.backends.openssl import backend

from provisiond import __version__

_REPORTED_PACKAGES: Final = ("amqtt", "aiomqtt", "aiosqlite", "cryptography", "pyopenssl")


def describe_version() -> str:
    """One line: this program, Python, and the packages that matter."""
    parts = [f"Python {python_version()}", f"SQLite {sqlite_version}", backend.openssl_version_text()]
    for package in _REPORTED_PACKAGES:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} missing")
    return f"provisiond {__version__} ({', '.join(parts)})"
