"""Two evaluations of the same cases: what was gained and lost, of each kind of file that `edgewright eval` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devices.errors import GateError, UsageError
from edge_agent.evaluation.comparison import FILES, compare, comparison_text, read_result


def own(folder: Path, *right: bool) -> Path:
    turns = [
        {"ask": f"ask {number}", "kind": "act", "problems": [] if is_right else ["the lamp\nis off"]}
        for number, is_right in enumerate(right)
    ]
    return write(folder / FILES[1], {"models": [{"label": "old", "turns": []}, {"label": "Q8_0", "turns": turns}]})


def write(path: Path, plain: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain))
    return path.parent


def test_what_was_gained_and_lost_is_said_with_the_reason(tmp_path: Path) -> None:
    before = own(tmp_path / "a", True, False, False, True)
    after = own(tmp_path / "b", False, True, True, True)
    found = compare(read_result(before), read_result(after))
    assert (found.before.count, found.after.count, found.difference.gained, found.difference.lost) == (2, 3, 2, 1)
    text = comparison_text("a", "b", found)
    assert text.startswith("**+25.0 points** (") and "4 cases: 2 gained, 1 lost" in text
    assert "| a | 2 of 4, 50.0% (15% to 85%) |" in text and "- ask 0 (act): the lamp is off" in text
    found.require_not_worse()


def test_more_lost_than_chance_explains_fails(tmp_path: Path) -> None:
    before, after = own(tmp_path / "a", *[True] * 40), own(tmp_path / "b", *[False] * 20, *[True] * 20)
    with pytest.raises(GateError, match=r"worse by 50\.0 points"):
        compare(read_result(before), read_result(after)).require_not_worse()
    lines = comparison_text("a", "b", compare(read_result(before), read_result(own(tmp_path / "c", *[False] * 40))))
    assert lines.count("\n- ask") == 20 and lines.endswith("- and 20 more")


def test_cases_of_one_of_them_only_are_counted_apart(tmp_path: Path) -> None:
    found = compare(read_result(own(tmp_path / "a", True, True)), read_result(own(tmp_path / "b", True)))
    assert found.left_out == 1 and "1 cases are in one of them only" in comparison_text("a", "b", found)


def test_generated_cases_and_replies_are_compared_by_their_ids(tmp_path: Path) -> None:
    failure = {"id": "c2", "ask": "lamp on", "kind": "call", "problems": ["moved nothing"]}
    engine = {"label": "F16", "success": {"c1": True, "c2": False}, "failures": [failure]}
    better = {"label": "F16", "success": {"c1": True, "c2": True}, "failures": []}
    first = read_result(write(tmp_path / "a" / FILES[0], {"engines": [engine]}), "F16")
    (gained,) = compare(first, read_result(write(tmp_path / "b" / FILES[0], {"engines": [better]}))).gained
    assert (gained.what, gained.problem) == ("lamp on (call)", "moved nothing")
    replies = [{"id": "r1", "asked": "refund", "kind": "refund", "is_good": False, "reply": "no"}]
    found = read_result(
        write(tmp_path / "t" / FILES[2], {"models": [{"label": "m", "constrained": {"replies": replies}}]})
    )
    assert found.items["r1"].problem == "no"


def test_what_is_no_evaluation_is_refused_in_one_line(tmp_path: Path) -> None:
    one = own(tmp_path / "a", True)
    for path, said in (
        (tmp_path / "none", "cannot be read as an evaluation"),
        (write(tmp_path / "b" / "other.json", []), "no evaluation is there"),
        (write(tmp_path / "c" / FILES[0], {"engines": []}), "cannot be read"),
        (write(one / FILES[0], {}), r"are both there"),
    ):
        with pytest.raises(UsageError, match=said):
            read_result(path)
    with pytest.raises(UsageError, match="has no model Q4"):
        read_result(one / FILES[1], "Q4")
    other = read_result(write(tmp_path / "d" / FILES[1], {"models": [{"label": "m", "turns": []}]}))
    with pytest.raises(UsageError, match="no case in common"):
        compare(read_result(one / FILES[1]), other)
