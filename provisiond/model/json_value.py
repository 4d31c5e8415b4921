"""What JSON holds, as parsed."""

from typing import Any

JSONValue = Any
"""A parsed JSON value."""
