"""Errors sorted by what the person should do next; every package's own errors derive from these."""


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
