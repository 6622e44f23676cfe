"""The Berkeley Function-Calling Leaderboard (BFCL v4) on our models: single-turn categories, judged as it judges.

Its files are read where they are and never copied in: `pip install --no-deps bfcl-eval` brings them (Apache-2.0), or
they are a folder of https://github.com/ShishirPatil/gorilla. A function is declared as our toolsets are, with `_` for
the dots in its name. Two passes: free, and under the grammar of the functions declared.

Source of the rules: berkeley-function-call-leaderboard, bfcl_eval/eval_checker/ast_eval/ast_checker.py, for Python.
Does not guard against: a model that was trained on it. Executable and multi-turn categories are not read.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.json_lines import read_json_lines
from edge_agent.engine.engine import Completion
from edge_agent.evaluation.conversations.turns import TurnCase, generate, requests_for, tools_of_case
from edge_agent.evaluation.evaluation import EvaluationEngine, Progress, fits, named, spread
from edge_agent.evaluation.intervals import Share, share_of
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.function_text import with_lines
from edge_agent.wire.messages import Message
from edge_agent.wire.parsing import Answer, ToolCalls, parse_reply

NAME = "bfcl"
CATEGORIES = (
    *("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance", "live_simple", "live_multiple"),
    *("live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance"),
)
WITHOUT_CALL, WITH_ANY_CALL = ("irrelevance", "live_irrelevance"), ("live_relevance",)
SYSTEM = "You call functions. Think first, then call tools or answer. Call nothing if no function does what is asked."
TYPES = {"dict": "object", "float": "number", "tuple": "array"}  # gorilla, bfcl_eval/constants/type_mappings.py
_IGNORED = re.compile(r"[ ,./\-_*^]")
Allowed = Mapping[str, Sequence[Any]]  # values of an argument, by its name; with "" among them it may be left out
Passes = tuple[Sequence["BfclOutcome"], Sequence["BfclOutcome"]]  # free, constrained


@dataclass(frozen=True)
class BfclCase:
    """A case: what stands before the reply with the functions declared there, and the calls that are right."""

    category: str
    turn: TurnCase
    answers: tuple[tuple[str, Allowed], ...]


@dataclass(frozen=True)
class BfclOutcome:
    """A case with what was replied; `problem` says why it is wrong, and is empty if it is not."""

    id: str
    category: str
    ask: str
    reply: str
    problem: str


def find_bfcl(folder: str = "") -> Path:
    """Return where BFCL's files are: a folder, or in the package bfcl-eval.

    Raises:
        UsageError: they are not there.
    """
    package = importlib.util.find_spec("bfcl_eval")
    packed = [Path(place) / "data" for place in (package.submodule_search_locations or ())] if package else []
    found = next((one for one in ([Path(folder)] if folder else packed) if any(one.glob("BFCL_v4_*.json"))), None)
    if found is None:
        hint = "pip install --no-deps bfcl-eval, or --suite bfcl=FOLDER with BFCL_v4_*.json of ShishirPatil/gorilla"
        raise UsageError(f"no BFCL in {folder}" if folder else "BFCL is not here", hint=hint)
    return found


def read_bfcl(folder: Path, count: int | None = None) -> list[BfclCase]:
    """Return the cases of all categories that a folder has, or `count` of each at even distances.

    Raises:
        UsageError: a file cannot be read, a case has no answer, or is of another form; with file and line.
    """
    found = []
    for category in CATEGORIES:
        path = folder / f"BFCL_v4_{category}.json"
        if not path.is_file():
            continue
        answers: dict[str, Any] = {}
        if category not in (*WITHOUT_CALL, *WITH_ANY_CALL):
            right = read_json_lines(folder / "possible_answer" / path.name, dict, "answer")
            answers = {one["id"]: one["ground_truth"] for _, one in right}
        cases = [case for _, case in read_json_lines(path, lambda plain: _case(category, plain, answers), "case")]  # noqa: B023
        found += spread(cases, count) if count else cases
    return found


def _case(category: str, plain: dict[str, Any], answers: Mapping[str, Any]) -> BfclCase:
    schemas = {plain_name(one["name"]): json_schema(one["parameters"]) for one in plain["function"]}
    described = zip(schemas.items(), plain["function"], strict=True)
    tools = [
        {"type": "function", "function": {"name": name, "description": one["description"], "parameters": schema}}
        for (name, schema), one in described
    ]
    (turns,) = plain["question"]
    before = [Message("system", with_lines(SYSTEM, tools))]
    before += [Message("user", one["content"]) for one in turns if one["role"] == "user"]
    right = [(plain_name(name), allowed) for call in answers.get(plain["id"], ()) for name, allowed in call.items()]
    if answers and not right:
        raise ValueError("no answer")
    turn = TurnCase(plain["id"], tuple(before), Message("assistant", ""), schemas)
    return BfclCase(category, turn, tuple(right))


def plain_name(name: str) -> str:
    """Return a function's name without dots, as the leaderboard gives it to models that allow none."""
    return name.replace(".", "_")


def json_schema(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of BFCL's, whose types are Python's, as JSON Schema."""
    schema = {key: value for key, value in plain.items() if key != "optional"}
    kind = schema.pop("type", "any")
    if kind != "any":
        schema["type"] = TYPES.get(kind, kind)
    if "properties" in schema:
        schema["properties"] = {name: json_schema(one) for name, one in schema["properties"].items()}
    if "items" in schema:
        schema["items"] = json_schema(schema["items"])
    return schema


def play_bfcl(
    engine: EvaluationEngine,
    cases: Sequence[BfclCase],
    template: ChatTemplate,
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> Passes:
    """Return what an engine does with the cases, free and constrained.

    Raises:
        UnavailableError: the engine failed.
    """
    requests = requests_for([case.turn for case in cases], template)
    free = generate(engine, [replace(one, grammar=None) for one in requests], batch_size, named("free", progress))
    again = [number for number, one in enumerate(free) if not fits(engine, requests[number], one)]
    rerun = generate(engine, [requests[number] for number in again], batch_size, named("constrained", progress))
    constrained = dict(enumerate(free)) | dict(zip(again, rerun, strict=True))
    return (
        [judge(case, one) for case, one in zip(cases, free, strict=True)],
        [judge(case, constrained[number]) for number, case in enumerate(cases)],
    )


def judge(case: BfclCase, completion: Completion) -> BfclOutcome:
    """Return the verdict on one reply."""
    reply = parse_reply(completion.text, tools_of_case(case.turn))
    if isinstance(reply, ToolCalls):
        problem = problem_of(case, [(call.name, call.arguments) for call in reply.calls])
    elif isinstance(reply, Answer):
        problem = problem_of(case, [])
    else:
        problem = "" if case.category in WITHOUT_CALL else f"cannot be parsed: {reply.reason}"
    return BfclOutcome(case.turn.id, case.category, case.turn.asked, completion.text, problem)


def problem_of(case: BfclCase, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return why calls are not those that a case wants, in any order; "" if they are."""
    if case.category in WITHOUT_CALL:
        return f"{calls[0][0]} was called" if calls else ""
    if case.category in WITH_ANY_CALL:
        return "" if calls else "nothing was called"
    if len(calls) != len(case.answers):
        return f"{len(calls)} calls and not {len(case.answers)}"
    left, first = list(calls), ""
    for name, allowed in case.answers:
        problems = [call_problem(name, allowed, case.turn.schemas.get(name, {}), one) for one in left]
        if "" not in problems:
            return first or problems[0]
        del left[problems.index("")]
    return ""


def call_problem(name: str, allowed: Allowed, schema: Mapping[str, Any], call: tuple[str, Mapping[str, Any]]) -> str:
    """Return why one call is not as allowed; "" if it is."""
    called, given = call
    if called != name:
        return f"{called} and not {name}"
    required, properties = schema.get("required", ()), schema.get("properties", {})
    if missing := [one for one in required if one not in given]:
        return f"{missing[0]} is missing"
    for argument, value in given.items():
        if argument not in allowed:
            return f"{argument} is not expected"
        if _is_float(value, properties.get(argument, {})) or not is_allowed(value, allowed[argument]):
            return f"{argument} is {value!r}"
    left_out = [one for one, values in allowed.items() if one not in given and "" not in values]
    return f"{left_out[0]} is missing" if left_out else ""


def _is_float(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a whole number was asked for, and 5.0 was given, which the leaderboard does not take."""
    if isinstance(value, list):
        return any(_is_float(one, schema.get("items", {})) for one in value)
    return schema.get("type") == "integer" and isinstance(value, float)


def is_allowed(value: Any, allowed: Sequence[Any]) -> bool:
    """Return whether a value is one of those allowed: text without marks and capitals, whole numbers as any numbers."""
    if isinstance(value, dict):
        return any(isinstance(one, dict) and _is_allowed_dict(value, one) for one in allowed)
    if isinstance(value, list):
        return any(isinstance(one, list) and _is_allowed_list(value, one) for one in allowed)
    return any(_same(value, one) for one in allowed)


def _is_allowed_dict(value: Mapping[str, Any], allowed: Mapping[str, Any]) -> bool:
    lists = {key: one if isinstance(one, list) else [one] for key, one in allowed.items()}
    is_each = all(key in lists and is_allowed(one, lists[key]) for key, one in value.items())
    return is_each and all("" in lists[key] for key in lists.keys() - value.keys())


def _is_allowed_list(value: Sequence[Any], allowed: Sequence[Any]) -> bool:
    pairs = zip(value, allowed, strict=False)
    return len(value) == len(allowed) and all(is_allowed(one, [other]) for one, other in pairs)


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, str) and isinstance(other, str):
        return _standard(value) == _standard(other)
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    return bool(value == other)


def _standard(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')


def by_category(outcomes: Sequence[BfclOutcome]) -> dict[str, Share]:
    """Return how many cases of each category are right, and of all."""
    kinds = dict.fromkeys(one.category for one in outcomes)
    shares = {kind: share_of(not one.problem for one in outcomes if one.category == kind) for kind in kinds}
    return shares | {"total": share_of(not one.problem for one in outcomes)}


def bfcl_table(models: Sequence[tuple[str, Passes]]) -> str:
    """Return the table for the terminal: a column for each model and pass."""
    columns = [(f"{label}, {how}", by_category(outcomes)) for label, passes in models
               for how, outcomes in zip(("free", "grammar"), passes, strict=True)]  # fmt: skip
    width = max(28, *(len(label) for label, _ in columns))
    lines = [" " * 24 + "".join(f"{label:>{width + 2}}" for label, _ in columns)]
    lines += [
        f"{kind:<24}" + "".join(f"{shares[kind]!s:>{width + 2}}" for _, shares in columns) for kind in columns[0][1]
    ]
    return "\n".join(lines)


def bfcl_plain(
    models: Sequence[tuple[str, Passes]],
) -> list[dict[str, Any]]:
    """Return everything as plain data."""
    return [
        {
            "label": label,
            **{
                how: {
                    "categories": {kind: asdict(share) for kind, share in by_category(outcomes).items()},
                    "cases": [asdict(one) for one in outcomes],
                }
                for how, outcomes in zip(("free", "constrained"), passes, strict=True)
            },
        }
        for label, passes in models
    ]
