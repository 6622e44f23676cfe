"""The same requests typed otherwise: what is changed, what is not, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from devices.errors import GateError, UsageError
from edge_agent.evaluation.own.other_typing import WAYS, in_other_ways, slip, typed_otherwise, typing_lines
from edge_agent.evaluation.own.own_cases import OwnCase, OwnTurn
from edgewright import build_app


@pytest.mark.parametrize(
    ("way", "ask", "typed"),
    [
        ("capitals", "Kitchen light to 40%, please.", "KITCHEN LIGHT TO 40%, PLEASE."),
        ("speech", "Kitchen light to 40%, please.", "kitchen light to forty percent please"),
        ("speech", "Set it to 21 °C!", "set it to twenty-one degrees"),
        ("speech", "Set it to 21.5 at 7:30.", "set it to 21.5 at 7:30"),
        ("speech", "What's order 1042?", "what's order one thousand and forty-two"),
        ("speech", "TXN9982", "txn9982"),
    ],
)
def test_a_request_in_another_way(way: str, ask: str, typed: str) -> None:
    assert WAYS[way](ask, Random(1)) == typed


def test_slips_are_the_same_every_time_and_no_more_than_were_asked_for() -> None:
    case = OwnCase(turns=(OwnTurn(ask="turn the kitchen light on"), OwnTurn(ask="and the porch light as well")))
    once, again = (typed_otherwise(case, "one slip") for _ in range(2))
    assert once == again and once != case
    assert all(abs(len(one.ask) - len(own.ask)) <= 1 for one, own in zip(once.turns, case.turns, strict=True))
    assert typed_otherwise(case, "three slips") != once
    assert slip("40", Random(1)) == "40" and slip("the lamp", Random(1), ["the lamp"]) == "the lamp"


def test_what_each_way_costs_is_counted_case_by_case() -> None:
    (found,) = in_other_ways([True, True, False, True], [("capitals", [True, False, True, False])])
    assert (found.right.count, found.right.total, found.change.lost, found.change.gained) == (2, 4, 2, 1)
    assert "2 of 4" in typing_lines([found])[1] and "2 lost, 1 gained" in typing_lines([found])[1]
    assert typing_lines([]) == []


def test_the_command_asks_in_every_way(tmp_path: Path) -> None:
    pytest.importorskip("hassil", reason="the rules' package is not installed")
    path, out = tmp_path / "mine.yaml", tmp_path / "out"
    path.write_text("- {ask: turn on the porch light, expect: {porch_light.on: true}}\n- {ask: hm, expect: {}}\n")
    arguments = ["eval", "rules", "--site", "home", "--cases", str(path), "--out", str(out), "--typed"]
    done = CliRunner().invoke(build_app(), [*arguments, "--fail-under", "capitals=0.9"])
    assert done.exit_code == 0 and "typed otherwise" in done.stdout, done.output
    (model,) = json.loads((out / "own_cases.json").read_text(encoding="utf-8"))["models"]
    assert [one["way"] for one in model["typed"]] == list(WAYS)
    assert model["typed"][2]["right"]["count"] == 1  # the sentences know no slip; what wants nothing is right anyway
    assert "Typed otherwise" in (out / "own_cases.html").read_text(encoding="utf-8")
    failed = CliRunner().invoke(build_app(), [*arguments, "--fail-under", "one slip=0.9"])
    assert isinstance(failed.exception, GateError)
    refused = CliRunner().invoke(build_app(), ["eval", "rules", "--out", str(out), "--typed"])
    assert isinstance(refused.exception, UsageError) and "--typed is of --cases" in str(refused.exception)
