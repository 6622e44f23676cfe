"""Errors sorted by what the person should do next; every package's own errors derive from these."""

import difflib
from collections.abc import Iterable


class EdgeError(Exception):
    """A failure this project can explain; `hint` is the next thing to try."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(EdgeError):
    """Fix the flag, the key or the data row."""

    exit_code = 2


class UnavailableError(EdgeError):
    """The same call may work later."""

    exit_code = 3


class RefusedError(EdgeError):
    """Safety or integrity said no; never retry."""

    exit_code = 4


class GateError(EdgeError):
    """It ran, and the result is not good enough."""

    exit_code = 5


def did_you_mean(typed: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the hint that names the nearest of the known names, or `otherwise` if none is near."""
    near = difflib.get_close_matches(typed, list(known), 1, 0.4)
    return f"did you mean {near[0]}?" if near else otherwise
