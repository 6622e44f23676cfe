"""Evaluation cases in training data are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from devices.site import load_site
from edge_agent.cases import write_cases
from edge_agent.wire import Message
from edgewright import main
from finetune.conversations import generate_cases, generate_rows
from finetune.leakage import find_leaks
from finetune.rows import Row, write_rows

SITE = load_site("home")


def test_generated_cases_are_not_in_generated_training() -> None:
    leaks = find_leaks(generate_rows(SITE, 600, 1), generate_cases(SITE, 100, 1000))
    assert (
        leaks.exact == () and len(leaks.near) <= 1
    )  # "turn on all lights" and "turn on all the lights" are two templates


def test_a_case_in_training_is_found_in_any_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (replace(case, ask=f"Water the lawn {case.id}") for case in generate_cases(SITE, 2, 1))
    said = (f"State:\nclock 08:00\nRequest: {one.ask.upper()}!", f"please, water my lawn now, {other.id}")
    rows = [Row((), (Message("user", text), Message("assistant", "Done.", "t"))) for text in said]
    leaks = find_leaks(rows, [one, other])
    assert leaks.exact == (one.id,) and leaks.near == (other.id,)
    write_rows(tmp_path / "rows.jsonl", rows)
    write_cases(tmp_path / "cases.jsonl", [one, other])
    assert main(["data", "check", str(tmp_path / "rows.jsonl"), "--cases", str(tmp_path / "cases.jsonl")]) == 5
    printed = capsys.readouterr()
    assert "of 2 cases 1 stand in" in printed.out and one.id in printed.err
