"""Smoke cases: what a bundle's model did with each at export, and whether an engine elsewhere does the same.

They tell a broken file, another arithmetic or another version of llama.cpp from the model that passed the gates. They
do not tell a good model from a bad one: a case whose record is wrong must be answered just as wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devices.errors import GateError, UsageError
from devices.json_lines import read_json_lines
from devices.site.tools import Command
from edge_agent.bundle import SMOKE, SMOKE_RECORD, Bundle, BundleTampered
from edge_agent.evaluation.cases import Case, State, read_cases, write_cases
from edge_agent.evaluation.evaluation import CaseOutcome
from edge_agent.evaluation.scoring import is_same_value

# Of the cases, those that may be answered otherwise. On one machine all are as recorded; on another processor, or with
# settings that `bench --tune` found, sums are rounded otherwise, and where two tokens nearly tie the other one is said
# (docs/export.md has what was measured).
DIFFERING_SHARE = 0.05
SENT = {"done", "failed", "unknown"}  # verdicts on a command that went to its device


@dataclass(frozen=True)
class SmokeReply:
    """What a model did with a case.

    Attributes:
        id: of the case.
        commands: the commands it proposed, in order.
        statuses: the broker's verdict on each.
        state_after: every property afterwards.
        answer: what the person saw.
        stop_reason: what ended the turn.
    """

    id: str
    commands: tuple[Command, ...]
    statuses: tuple[str, ...]
    state_after: State
    answer: str
    stop_reason: str

    @classmethod
    def of(cls, outcome: CaseOutcome) -> SmokeReply:
        """Return what is kept of an outcome."""
        result = outcome.result
        return cls(
            outcome.case.id,
            tuple(Command(item.device, item.action, item.input) for item in result.actions),
            tuple(item.status for item in result.actions),
            outcome.state_after,
            result.answer,
            result.stop_reason,
        )

    @property
    def sent(self) -> list[Command]:
        """The commands that went to a device."""
        return [command for command, status in zip(self.commands, self.statuses, strict=True) if status in SENT]

    def __str__(self) -> str:
        told = [
            f"{one.device}.{one.action}({', '.join(f'{name}={value}' for name, value in one.input.items())}) {status}"
            for one, status in zip(self.commands, self.statuses, strict=True)
        ]
        return ", ".join(told) or f"no call ({self.stop_reason})"


@dataclass(frozen=True)
class Smoke:
    """Cases, and beside each what the model did with it at export."""

    cases: tuple[Case, ...]
    record: tuple[SmokeReply, ...]

    def write(self, folder: Path) -> None:
        """Write smoke.jsonl and smoke_record.jsonl into a bundle's folder."""
        write_cases(folder / SMOKE, self.cases)
        lines = [json.dumps(asdict(reply)) + "\n" for reply in self.record]
        (folder / SMOKE_RECORD).write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Difference:
    """A case that was answered otherwise. `is_wrong_move`: a command went to a device that the record did not send."""

    id: str
    ask: str
    recorded: str
    said: str
    is_wrong_move: bool


@dataclass(frozen=True)
class SelfTest:
    """What came of a self-test.

    `differing` are cases whose calls or end state are not the recorded ones, `allowed` is how many may be;
    `other_words` counts those where only the answer's words are others.
    """

    cases: int
    differing: tuple[Difference, ...]
    allowed: int
    other_words: int

    @property
    def is_passed(self) -> bool:
        """Whether few enough cases differ, and none by moving something that the record did not move."""
        return len(self.differing) <= self.allowed and not any(one.is_wrong_move for one in self.differing)

    def __str__(self) -> str:
        found = f"{self.cases} cases, {len(self.differing)} not as recorded ({self.allowed} may be)"
        return f"self-test: {found}" + (f", {self.other_words} in other words" if self.other_words else "")

    def require(self, where: Path) -> None:
        """Raise GateError unless it is passed; the message has the worst case, with what was said and recorded."""
        if not self.is_passed:
            worst = max(self.differing, key=lambda one: one.is_wrong_move)
            moved = ", which moves what the record does not move" if worst.is_wrong_move else ""
            raise GateError(
                f"{where}: {self}; {worst.id} ({worst.ask!r}): {worst.said} instead of {worst.recorded}{moved}",
                hint="`edgewright selftest --json` lists all; is llama.cpp here the version that the bundle names?",
            )


def compare(smoke: Smoke, replies: Sequence[SmokeReply]) -> SelfTest:
    """Return how replies to the smoke cases, in their order, differ from the record."""
    differing = []
    other_words = 0
    for case, recorded, reply in zip(smoke.cases, smoke.record, replies, strict=True):
        extra = [command for command in reply.sent if command not in recorded.sent]
        has_same_calls = (recorded.commands, recorded.statuses) == (reply.commands, reply.statuses)
        state = _state_difference(recorded, reply) if has_same_calls else ""
        if state or not has_same_calls:
            differing.append(Difference(case.id, case.ask, str(recorded), f"{reply}{state}", bool(extra)))
        elif recorded.answer != reply.answer:
            other_words += 1
    return self_test(len(smoke.cases), differing, other_words)


def self_test(cases: int, differing: Sequence[Difference], other_words: int) -> SelfTest:
    """Return what came of so many cases, with how many of them may differ."""
    return SelfTest(cases, tuple(differing), int(DIFFERING_SHARE * cases), other_words)


def _state_difference(recorded: SmokeReply, reply: SmokeReply) -> str:
    for device, values in recorded.state_after.items():
        for name, value in values.items():
            if not is_same_value(value, got := reply.state_after.get(device, {}).get(name)):
                return f" with {device}.{name} at {got} and not {value}"
    return ""


def read_smoke(bundle: Bundle) -> Smoke | None:
    """Return a bundle's smoke cases with their record; None if it has no cases, or no record of them.

    Raises:
        UsageError: the cases cannot be read.
        BundleTampered: the record cannot be read, or is of other cases.
    """
    path = bundle.smoke_record_path
    if bundle.smoke_path is None or path is None:
        return None
    cases = read_cases(bundle.smoke_path)
    try:
        record = [reply for _, reply in read_json_lines(path, _reply, "record of a smoke case")]
    except UsageError as error:
        raise BundleTampered(str(error)) from error
    if not cases or [one.id for one in cases] != [one.id for one in record]:
        raise BundleTampered(f"{path}: not a record of the cases in {SMOKE}")
    return Smoke(tuple(cases), tuple(record))


def _reply(plain: dict[str, Any]) -> SmokeReply:
    commands = tuple(Command(item["device"], item["action"], item["input"]) for item in plain.pop("commands"))
    return SmokeReply(commands=commands, statuses=tuple(plain.pop("statuses")), **plain)
