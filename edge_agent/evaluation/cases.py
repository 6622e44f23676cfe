"""Evaluation cases: a request in a known state of the world, and what must come of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devices.durable import write_file
from devices.json_lines import read_json_lines
from devices.site.schema import Value
from devices.site.tools import Command

State = dict[str, dict[str, Value]]
CASES, CASES_SEED = 400, 1000  # of an evaluation that is given no cases, and of what training may not have seen


@dataclass(frozen=True)
class Case:
    """One held-out request.

    Attributes:
        id: unique in its file.
        kind: what it practises, such as "call", "state_question", "out_of_range".
        ask: what the person says.
        state: every property of every device before the turn.
        clock: local time as HH:MM.
        broken: devices that do not answer in this case.
        stuck: devices that answer and do not move.
        is_confirmed: whether the person says yes when the broker asks.
        commands: the commands that must be proposed, in this order when `in_order`; none means no call.
        in_order: whether the order of commands matters.
        statuses: the broker's verdict on each command, from the reference run.
        state_after: every property after the reference run.
        answer_has: what the answer must contain, compared in lower case; each entry lists alternatives.
    """

    id: str
    kind: str
    ask: str
    state: State
    clock: str
    broken: tuple[str, ...]
    is_confirmed: bool
    commands: tuple[Command, ...]
    in_order: bool
    statuses: tuple[str, ...]
    state_after: State
    answer_has: tuple[tuple[str, ...], ...]
    stuck: tuple[str, ...] = ()


def read_cases(path: Path) -> list[Case]:
    """Return the cases of a JSONL file. Raises UsageError with file and line."""
    return [case for _, case in read_json_lines(path, _case_from_dict, "case")]


def _case_from_dict(plain: dict[str, Any]) -> Case:
    commands = tuple(Command(item["device"], item["action"], item["input"]) for item in plain.pop("commands"))
    plain["answer_has"] = tuple(tuple(words) for words in plain["answer_has"])
    plain |= {name: tuple(plain[name]) for name in ("broken", "stuck", "statuses")}
    return Case(commands=commands, **plain)


def write_cases(path: Path, cases: Iterable[Case]) -> int:
    """Write cases as JSONL, whole or not at all; return how many."""
    lines = [json.dumps(asdict(case)) + "\n" for case in cases]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, "".join(lines).encode())
    return len(lines)
