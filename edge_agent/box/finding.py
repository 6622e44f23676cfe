"""What a check has found, and all of it as one report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from devices.errors import EdgeError, UnavailableError

Level = Literal["ok", "warning", "failure"]
NAME_COLUMNS, LEVEL_COLUMNS = 13, 8


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what, in a word or two.
        level: a warning does not keep the agent from running, a failure does.
        text: one sentence, with the numbers.
        fix: what to do; "" if all is well.
    """

    name: str
    level: Level
    text: str
    fix: str = ""

    def __post_init__(self) -> None:
        assert bool(self.fix) == (self.level != "ok"), f"{self.name}: {self.level} and the fix {self.fix!r}"

    def __str__(self) -> str:
        head = f"{self.level:{LEVEL_COLUMNS}} {self.name:{NAME_COLUMNS}} {self.text}"
        return f"{head}\n{'':{LEVEL_COLUMNS + NAME_COLUMNS + 2}}fix: {self.fix}" if self.fix else head


def ok(name: str, text: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(name, "ok", text)


def warning(name: str, text: str, fix: str) -> Finding:
    """Return a finding with which the agent runs all the same."""
    return Finding(name, "warning", text, fix)


def failure(name: str, text: str, fix: str) -> Finding:
    """Return a finding with which the agent does not run, or not as it should."""
    return Finding(name, "failure", text, fix)


def size_text(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def guarded(name: str, check: Callable[[], Iterable[Finding]], fix: str) -> list[Finding]:
    """Return what a check finds; what it raises is a failure, so that the other checks are made.

    Args:
        name: of the finding that stands for an error.
        check: may raise what this project can explain, or what the system says of a file.
        fix: where the error has no hint of its own.
    """
    try:
        return list(check())
    except EdgeError as error:
        return [failure(name, str(error), error.hint or fix)]
    except OSError as error:
        return [failure(name, f"cannot be looked at: {error}", fix)]


@dataclass(frozen=True)
class Report:
    """All findings about a box."""

    box: Path
    findings: tuple[Finding, ...]

    @property
    def will_run(self) -> bool:
        """Whether there is no failure."""
        return all(one.level != "failure" for one in self.findings)

    def __str__(self) -> str:
        counts = Counter(one.level for one in self.findings)
        told = [f"{counts['ok']} ok"]
        told += [f"{counts[level]} {level}{'s' * (counts[level] > 1)}" for level in ("warning", "failure")
                 if counts[level]]  # fmt: skip
        verdict = "the agent will run here" if self.will_run else "the agent will not run here"
        return "\n".join([*map(str, self.findings), f"{verdict}: {', '.join(told)}"])

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"box": str(self.box), "will_run": self.will_run, "findings": [asdict(one) for one in self.findings]}

    def require(self) -> None:
        """Raise UnavailableError, with what to do first, if there is a failure."""
        failures = [one for one in self.findings if one.level == "failure"]
        if failures:
            names = ", ".join(one.name for one in failures)
            raise UnavailableError(f"{self.box}: the agent will not run here: {names}", hint=failures[0].fix)
