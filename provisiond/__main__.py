"""`python -m provisiond`."""

from provisiond.cli.main import main

if __name__ == "__main__":
    main()
