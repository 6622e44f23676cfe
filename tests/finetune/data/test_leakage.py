"""Evaluation cases in training data are found."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from devices.site.site import SITES_FOLDER, load_site
from devices.yaml_file import shipped_names
from edge_agent.evaluation.cases import CASES, CASES_SEED, write_cases
from edge_agent.wire.messages import Message
from edgewright import main
from finetune.data.generator import generate_cases, generate_rows
from finetune.data.leakage import find_leaks, without_leaks
from finetune.data.people.asks import load_asks
from finetune.data.rows import Row, write_rows

SITE = load_site("home")


@pytest.mark.parametrize("name", shipped_names(SITES_FOLDER))
def test_generated_cases_are_not_in_generated_training(name: str) -> None:
    site = load_site(name)
    leaks = find_leaks(generate_rows(site, 600, 1), generate_cases(site, 200, 1000), site)
    assert leaks.found == () and leaks.cases == 200


def test_a_case_in_training_is_found_in_any_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asks = (
        "Water the lawn today",
        "Water the lawn tonight",
        "Let the bedroom lamp glow at 20 percent",
        "Water the roses",
    )
    cases = [replace(case, ask=ask) for case, ask in zip(generate_cases(SITE, 4, 1), asks, strict=True)]
    said = (
        "State:\nclock 08:00\nRequest: WATER THE LAWN TODAY!",
        "please, water my lawn tonight",
        "let the kitchen light glow at 35 percent",
    )
    rows = [Row((), (Message("user", text), Message("assistant", "Done.", "t"))) for text in said]
    leaks = find_leaks(rows, cases, SITE)
    first, second, third, _ = (case.id for case in cases)
    assert (leaks.exact, leaks.near, leaks.phrasing) == ((first,), (second,), (third,))
    write_rows(tmp_path / "rows.jsonl", rows)
    write_cases(tmp_path / "cases.jsonl", cases)
    assert main(["data", "check", str(tmp_path / "rows.jsonl"), "--cases", str(tmp_path / "cases.jsonl")]) == 5
    printed = capsys.readouterr()
    assert "of 4 cases 1 stand in" in printed.out and "seen 3 of 4 evaluation cases: " + first in printed.err


def test_people_do_not_say_what_a_held_out_phrasing_says() -> None:
    cases = list(generate_cases(SITE, CASES, CASES_SEED))
    row = next(generate_rows(SITE, 1, 1))
    said = [
        replace(row, messages=(*row.messages[:1], replace(row.messages[1], text=text), *row.messages[2:]))
        for text in (cases[0].ask.upper(), row.messages[1].text)
    ]
    assert list(without_leaks([row, *said], cases, SITE)) == [row, said[1]]


@pytest.mark.slow
def test_no_seed_of_the_corpus_makes_a_leak() -> None:
    rows = generate_rows(SITE, 6000, 5, asks=load_asks())
    assert find_leaks(rows, generate_cases(SITE, CASES, CASES_SEED), SITE).found == ()


def test_training_refuses_what_the_evaluation_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, cases = tmp_path / "rows.jsonl", list(generate_cases(SITE, 3, CASES_SEED))
    row = next(generate_rows(SITE, 1, 1))
    seen = [replace(m, text=cases[2].ask) if m.role == "user" else m for m in row.messages]
    train = ["train", "home", f"data={data}", f"out={tmp_path / 'run'}", "--dry-run"]
    write_rows(data, [row, replace(row, messages=tuple(seen))])
    assert main(train) == 5
    assert re.search(rf"rows.jsonl has seen \d of 400 evaluation cases: {cases[2].id}", capsys.readouterr().err)
    write_cases(tmp_path / "cases.jsonl", cases[:2])
    assert main([*train, f"cases={tmp_path / 'cases.jsonl'}"]) == 0  # of these it has seen none
