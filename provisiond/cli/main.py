"""Being written."""


def main() -> None:
    """Placeholder."""
