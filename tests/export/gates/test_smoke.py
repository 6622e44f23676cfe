"""Which cases a bundle takes along: of every kind, and none that training or a gate has seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.site.site import load_site
from edge_agent.evaluation.cases import write_cases
from edge_agent.run_facts import RUN_FILE
from edge_agent.wire.chat_template import load_template
from export.gates.smoke import SMOKE_CASES, asked_in, choose_cases, read_own_cases, record_smoke, rows_of, words_of
from finetune.data.generator import generate_cases, generate_rows
from finetune.data.rows import write_rows
from tests.tiny_base import data_facts, tiny_facts

SITE = load_site("home")


def test_every_kind_is_there_as_often_as_any_other() -> None:
    drawn = list(generate_cases(SITE, 300, 5))
    chosen = choose_cases(drawn, set())
    counts = Counter(case.kind for case in chosen)
    assert len(chosen) == SMOKE_CASES >= 20
    assert counts.keys() == {case.kind for case in drawn} and max(counts.values()) - min(counts.values()) <= 1
    assert len({words_of(case.ask) for case in chosen}) == len(chosen)


def test_what_was_asked_before_is_not_chosen() -> None:
    drawn = list(generate_cases(SITE, 60, 5))
    used = {words_of(case.ask) for case in drawn[:50]}
    chosen = choose_cases(drawn, used)
    assert chosen and not {words_of(case.ask) for case in chosen} & used
    assert {case.id for case in chosen} <= {case.id for case in drawn[50:]}
    assert words_of("Turn the LIGHT on, please!") == words_of("turn the light on please")


def test_requests_of_training_are_read(tmp_path: Path) -> None:
    rows = list(generate_rows(SITE, 20, 3))
    write_rows(tmp_path / "all.jsonl", rows)
    found = set(asked_in(tmp_path / "all.jsonl"))
    assert len(found) > 10 and all("\n" not in words and words == words.lower() for words in found)
    assert not any(words.startswith("state") for words in found)  # what the person said, not the state before it
    assert not set(asked_in(tmp_path / "gone.jsonl"))
    facts = tiny_facts(data=data_facts(path=f"{tmp_path}/all.jsonl"))
    (tmp_path / RUN_FILE).write_text(facts.to_json(), encoding="utf-8")
    assert rows_of(tmp_path) == [tmp_path / "sample.jsonl", tmp_path / "all.jsonl"]
    (tmp_path / "all.jsonl").write_text("1\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"all\.jsonl:1: not a conversation"):
        list(asked_in(tmp_path / "all.jsonl"))


def test_own_cases_are_of_the_site_and_have_ids_of_their_own(tmp_path: Path) -> None:
    cases = list(generate_cases(load_site("greenhouse"), 2, 1))
    write_cases(tmp_path / "own.jsonl", cases)
    assert read_own_cases(tmp_path / "own.jsonl", load_site("greenhouse")) == cases
    with pytest.raises(UsageError, match="which the site has not"):
        read_own_cases(tmp_path / "own.jsonl", SITE)
    with pytest.raises(UsageError, match="two smoke cases are called"):
        record_smoke(tmp_path / "none.gguf", None, SITE, load_template("chatml"), [cases[0], cases[0]])
