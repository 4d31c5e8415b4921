"""What operators do: the command line, REST and a portal all call these use cases."""

from provisiond.admin.use_cases import Admin

__all__ = ["Admin"]
