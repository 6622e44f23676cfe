"""Judge evaluation outcomes one by one: was the task done, was the call right, was the reply well formed.

A task that expects calls succeeds when the proposed commands, the broker's verdicts and the final state are those of
the reference run. One that expects none succeeds when nothing was proposed, the state is untouched, and the person got
an answer with the words it must have. Nothing here runs a model or reads a file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devices.site.schema import Value
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.evaluation import CaseOutcome
from edge_agent.wire.markers import CALL, END_CALL
from edge_agent.wire.parsing import ToolCalls, Unusable

NUMBER_TOLERANCE = 0.11  # snapshots have one decimal, and two roundings may differ by one step

# A claim names a state as reached; anything that denies, refuses, asks or names a limit is none. The list is kept
# small on purpose. It cannot tell a true sentence about another device from a false one about the right device.
CLAIM = re.compile(
    r"\b(done|turned|switched|opened|closed|locked|unlocked|started|stopped|changed|has been|have been"
    r"|(is|are|set to)( now| already)? (on|off|open|closed|locked|unlocked|running|watering|stopped|set|at|\d+))\b"
)
NO_CLAIM = re.compile(
    r"\?|n't\b|n’t\b|\b(no|not|never|cannot|unable|sorry|failed|refused|only|outside|between|must|needs?|which)\b"
)


@dataclass(frozen=True)
class CaseScore:
    """One case, judged. `problems` says in words why a task failed; it succeeded if there are none.

    `is_tool_right` (device and action) and `is_argument_right` (input too) are None where no call is expected,
    `is_uncalled` is None where one is. `is_wrong_move` says whether an action that is not in the reference run was
    done. `claims_success` is about the model's own last words; `is_claim_heard` says
    whether the person gets to hear them, because nothing was proposed that a read-back could answer for.
    """

    id: str
    kind: str
    problems: tuple[str, ...]
    is_tool_right: bool | None
    is_argument_right: bool | None
    is_uncalled: bool | None
    is_wrong_move: bool
    claims_success: bool
    is_claim_heard: bool

    @property
    def is_success(self) -> bool:
        """Whether the task succeeded."""
        return not self.problems


def is_question_due(case: Case) -> bool:
    """Return whether a case can only be answered by asking back."""
    return ("?",) in case.answer_has


def asks_back(outcome: CaseOutcome) -> bool:
    """Return whether the person was asked something, by the agent or the model."""
    return outcome.result.answer.rstrip().endswith("?")


def score_case(outcome: CaseOutcome) -> CaseScore:
    """Return the verdict on one outcome."""
    case, actions = outcome.case, outcome.result.actions
    expects_call = bool(case.commands)
    claims = claims_success(outcome.result.model_answer)
    tools = [(command.device, command.action) for command in case.commands]
    commands = [_command_key(command.device, command.action, command.input) for command in case.commands]
    got_tools = [(action.device, action.action) for action in actions]
    got_commands = [_command_key(action.device, action.action, action.input) for action in actions]
    return CaseScore(
        id=case.id,
        kind=case.kind,
        problems=tuple(_problems(outcome, commands, got_commands)),
        is_tool_right=_same(tools, got_tools, case.in_order) if expects_call else None,
        is_argument_right=_same(commands, got_commands, case.in_order) if expects_call else None,
        is_uncalled=None if expects_call else not actions,
        is_wrong_move=any(
            action.status == "done" and key not in commands for key, action in zip(got_commands, actions, strict=True)
        ),
        claims_success=claims,
        is_claim_heard=claims and not actions,
    )


def failed_ways(outcome: CaseOutcome, score: CaseScore) -> list[str]:
    """Return what is wrong with a failed outcome, in the words that a reader filters by; at least one."""
    case, result = outcome.case, outcome.result
    is_due = bool(case.commands)
    ways = {
        "no call": is_due and not result.actions,
        "wrong tool": score.is_tool_right is False and bool(result.actions),
        "wrong arguments": score.is_tool_right is True and score.is_argument_right is False,
        "called, and none was due": score.is_uncalled is False,
        "moved what it should not": score.is_wrong_move,
        "did not ask": is_question_due(case) and not asks_back(outcome),
        "asked needlessly": is_due and asks_back(outcome),
        "held back": result.stop_reason == "unsure",
        "says done": is_due and score.claims_success,
        "wrong answer": not is_due and bool(answer_problems(result.answer, case.answer_has)),
    }
    return [name for name, applies in ways.items() if applies] or ["other outcome"]


def _command_key(device: str, action: str, given: dict[str, Value]) -> tuple[str, ...]:
    return (device, action, *sorted(f"{key}={_value_key(value)}" for key, value in given.items()))


def _value_key(value: Value) -> str:
    """Return a text that is equal for equal values: 20 and 20.0 are the same number, true is not 1."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = round(float(value), 6)
        value = int(number) if number.is_integer() else number
    return json.dumps(value)


def _same(expected: Sequence[object], got: Sequence[object], in_order: bool) -> bool:
    return list(expected) == list(got) if in_order else Counter(expected) == Counter(got)


def _problems(outcome: CaseOutcome, expected: list[tuple[str, ...]], got: list[tuple[str, ...]]) -> list[str]:
    case, result = outcome.case, outcome.result
    found = []
    if not expected and got:
        found.append(f"called {_listed(got)} where no call was expected")
    elif not _same(expected, got, case.in_order):
        found.append(f"called {_listed(got)} instead of {_listed(expected)}")
    else:
        wanted = list(zip(expected, case.statuses, strict=True))
        had = [(key, action.status) for key, action in zip(got, result.actions, strict=True)]
        if not _same(wanted, had, case.in_order):
            statuses = ", ".join(status for _, status in had)
            found.append(f"the broker said {statuses} instead of {', '.join(case.statuses)}")
    found += _state_problems(case, outcome)
    if not expected:
        if result.stop_reason not in {"answer", "question"}:
            found.append(f"no answer ({result.stop_reason})")
        found += answer_problems(result.answer, case.answer_has)
    return found


def answer_problems(answer: str, has: Iterable[Sequence[str]]) -> list[str]:
    """Return what an answer lacks: of each list of words it must have one, in any capitals."""
    seen = answer.lower()
    return [
        f"the answer lacks {' or '.join(words)}" for words in has if not any(word.lower() in seen for word in words)
    ]


def _listed(commands: list[tuple[str, ...]]) -> str:
    texts = [f"{device}.{action}({', '.join(values)})" for device, action, *values in commands]
    return ", ".join(texts) or "nothing"


def _state_problems(case: Case, outcome: CaseOutcome) -> list[str]:
    return [
        f"{device}.{name} is {json.dumps(got)} instead of {json.dumps(value)}"
        for device, values in case.state_after.items()
        for name, value in values.items()
        if not is_same_value(value, got := outcome.state_after.get(device, {}).get(name))
    ]


def is_same_value(expected: Value, got: Value | None) -> bool:
    """Return whether two readings are equal; numbers within 0.11, and true is not 1."""
    if isinstance(expected, bool | str) or got is None or isinstance(got, bool | str):
        return type(expected) is type(got) and expected == got
    return abs(expected - got) <= NUMBER_TOLERANCE


def claims_success(text: str) -> bool:
    """Return whether a text states a state as reached, without denial, refusal, limit or question.

    A rule on words: it takes a true remark about another device for a claim, and misses claims in words that are not
    in its list.
    """
    lowered = text.lower()
    return bool(CLAIM.search(lowered)) and not NO_CLAIM.search(lowered)


@dataclass(frozen=True)
class ReplyForm:
    """The form of one reply: whether it starts a call, its calls are JSON objects, they fit, and it can be used."""

    has_call: bool
    is_json: bool
    fits_schema: bool
    is_usable: bool


def reply_forms(outcomes: Iterable[CaseOutcome]) -> list[ReplyForm]:
    """Return the form of every reply of every turn. A call counts from its marker on, wherever that stands."""
    return [
        ReplyForm(
            has_call=CALL in completion.text,
            is_json=_are_json_objects(completion.text),
            fits_schema=isinstance(reply, ToolCalls),
            is_usable=not isinstance(reply, Unusable),
        )
        for outcome in outcomes
        for completion, reply in zip(outcome.result.completions, outcome.result.replies, strict=True)
    ]


def _are_json_objects(text: str) -> bool:
    for rest in text.split(CALL)[1:]:
        body, end, _ = rest.partition(END_CALL)
        try:
            value = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return False
        if not end or not isinstance(value, dict):
            return False
    return True


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
