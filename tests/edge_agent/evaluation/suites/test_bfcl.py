"""Cases of the Berkeley leaderboard: read as they are published, and judged as it judges them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devices.errors import UsageError
from edge_agent.engine.engine import Completion
from edge_agent.evaluation.suites.bfcl import (
    bfcl_plain,
    bfcl_table,
    find_bfcl,
    is_allowed,
    judge,
    play_bfcl,
    problem_of,
    read_bfcl,
)
from edge_agent.grammar.grammar import Grammar
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.messages import Message, ToolCall, body_of

AREA = {
    "name": "geometry.area",
    "description": "The area of a rectangle.",
    "parameters": {
        "type": "dict",
        "properties": {
            "width": {"type": "integer", "description": "In m."},
            "height": {"type": "float", "description": "In m."},
            "unit": {"type": "string", "description": "Of the result."},
        },
        "required": ["width", "height"],
    },
}
RIGHT = {"geometry.area": {"width": [3], "height": [2.5, 2], "unit": ["", "m^2"]}}


def write(folder: Path, category: str, right: list[dict[str, Any]] | None) -> None:
    """A file of one case, with its answer beside it."""
    case = {"id": f"{category}_0", "question": [[{"role": "user", "content": "How large?"}]], "function": [AREA]}
    (folder / "possible_answer").mkdir(parents=True, exist_ok=True)
    (folder / f"BFCL_v4_{category}.json").write_text(json.dumps(case) + "\n")
    if right is not None:
        answer = {"id": case["id"], "ground_truth": right}
        (folder / "possible_answer" / f"BFCL_v4_{category}.json").write_text(json.dumps(answer) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "simple_python", [RIGHT])
    write(tmp_path, "parallel", [RIGHT, {"geometry.area": {"width": [4], "height": [1]}}])
    write(tmp_path, "irrelevance", None)
    write(tmp_path, "live_relevance", None)
    return tmp_path


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        ([("geometry_area", {"width": 3, "height": 2.5})], ""),
        ([("geometry_area", {"width": 3, "height": 2, "unit": "M 2"})], ""),
        ([("geometry_area", {"width": 3.0, "height": 2})], "width is 3.0"),
        ([("geometry_area", {"width": 3, "height": 4})], "height is 4"),
        ([("geometry_area", {"width": 3})], "height is missing"),
        ([("geometry_area", {"width": 3, "height": 2, "depth": 1})], "depth is not expected"),
        ([("geometry_volume", {"width": 3, "height": 2})], "geometry_volume and not geometry_area"),
        ([], "0 calls and not 1"),
    ],
)
def test_a_call_is_judged_by_function_arguments_and_their_values(
    folder: Path, calls: list[tuple[str, dict[str, Any]]], problem: str
) -> None:
    case = read_bfcl(folder)[0]
    assert (case.turn.id, case.category) == ("simple_python_0", "simple_python")
    assert problem_of(case, calls) == problem


def test_several_calls_may_come_in_any_order(folder: Path) -> None:
    case = next(one for one in read_bfcl(folder) if one.category == "parallel")
    one, other = ("geometry_area", {"width": 4, "height": 1}), ("geometry_area", {"width": 3, "height": 2})
    assert problem_of(case, [one, other]) == problem_of(case, [other, one]) == ""
    assert problem_of(case, [one, one]) and problem_of(case, [one])


def test_values_are_compared_as_the_leaderboard_does() -> None:
    assert is_allowed("New York, NY", ["new york ny"]) and is_allowed("it's", ['it"s'])
    assert not is_allowed("New York", ["New York, NY"]) and not is_allowed(True, [1]) and not is_allowed("3", [3])
    assert is_allowed([1, "A b"], [[1, "ab"]]) and not is_allowed([1], [[1, 2]])
    assert is_allowed({"a": 1}, [{"a": [1, 2], "b": ["", 3]}]) and not is_allowed({"b": 3}, [{"a": [1], "b": ["", 3]}])


def completion(text: str) -> Completion:
    return Completion(text, (), "end_of_turn", 0, 0, 0, 0, 0, (), 0.0, 0.0)


class Says:
    """An engine that replies with one text, which no grammar lets through."""

    name = "says"

    def __init__(self, free: str, constrained: str) -> None:
        self._texts = free, constrained

    def generate(self, requests: Any) -> list[Completion]:
        return [completion(self._texts[one.grammar is not None]) for one in requests]

    def accepts(self, grammar: Grammar, token_ids: Any) -> bool:
        return False


def test_both_passes_are_counted_by_category(folder: Path) -> None:
    call = body_of(Message("assistant", "", "t", (ToolCall("geometry_area", {"width": 3, "height": 2}),)))
    no_call = body_of(Message("assistant", "None fits.", "t"))
    cases = read_bfcl(folder)
    passes = play_bfcl(Says(no_call, call), cases, load_template("chatml"), batch_size=2)  # type: ignore[arg-type]
    free, constrained = bfcl_plain([("m", passes)])[0]["free"], bfcl_plain([("m", passes)])[0]["constrained"]
    assert {kind: one["count"] for kind, one in free["categories"].items()} == {
        "simple_python": 0, "parallel": 0, "irrelevance": 1, "live_relevance": 0, "total": 1,
    }  # fmt: skip
    assert {kind: one["count"] for kind, one in constrained["categories"].items()} == {
        "simple_python": 1, "parallel": 0, "irrelevance": 0, "live_relevance": 1, "total": 2,
    }  # fmt: skip
    assert "simple_python" in bfcl_table([("m", passes)])
    assert "geometry_area(width: int, height: float, unit: str = None): The area" in cases[0].turn.before[0].text
    assert judge(cases[0], completion("<think> t")).problem.startswith("cannot be parsed")
    assert judge(cases[2], completion("<think> t")).problem == ""  # nothing was called


def test_what_is_missing_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no BFCL in"):
        find_bfcl(str(tmp_path / "none"))
    assert find_bfcl(str(folder)) == folder
    path = folder / "possible_answer" / "BFCL_v4_simple_python.json"
    path.write_text(json.dumps({"id": "other", "ground_truth": [RIGHT]}) + "\n")
    with pytest.raises(UsageError, match=r"BFCL_v4_simple_python\.json:1"):
        read_bfcl(folder)
