"""run.json is a format: its text stays as it is, older ones are read, and what cannot be is one clear line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from devices.errors import UsageError
from edge_agent.run_facts import RUN_FILE, GeneralFacts, read_run_facts
from tests.tiny_base import tiny_facts

GENERAL = GeneralFacts("general", 9, 1, 3, 1.5, 1.25)
TEXT = """{
  "schema": "run/v1",
  "base": "Größe",
  "base_sha256": {},
  "site": "home",
  "template": "chatml",
  "contract": "",
  "any_site": "",
  "data": {
    "path": "",
    "sha256": "0000000000000000000000000000000000000000000000000000000000000000",
    "rows": 0,
    "tokens": 0,
    "trained_tokens": 0,
    "dropped": 0
  },
  "versions": {},
  "device": "cpu",
  "dtype": "float32",
  "optimizer": "adamw_torch",
  "trained_parameters": 0,
  "all_parameters": 0,
  "losses": [
    [
      1,
      1.5
    ]
  ],
  "held_out_losses": [],
  "general": null,
  "seconds": 1.0,
  "tokens_per_s": 1.0,
  "seed": 0,
  "processes": 1
}
"""


def test_the_text_stays_as_it_is(tmp_path: Path) -> None:
    facts = tiny_facts(base="Größe")
    assert facts.to_json() == TEXT
    (tmp_path / RUN_FILE).write_text(TEXT, encoding="utf-8")
    assert read_run_facts(tmp_path) == facts


def test_a_run_of_before_newer_facts_is_read(tmp_path: Path) -> None:
    plain = asdict(tiny_facts(general=GENERAL))
    for name in ("held_out_losses", "processes"):
        del plain[name]
    for name in ("short", "exact_before", "exact_after"):
        del plain["general"][name]
    (tmp_path / RUN_FILE).write_text(json.dumps(plain), encoding="utf-8")
    assert read_run_facts(tmp_path) == tiny_facts(general=GENERAL)
    del plain["general"]
    (tmp_path / RUN_FILE).write_text(json.dumps(plain), encoding="utf-8")
    assert read_run_facts(tmp_path) == tiny_facts()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("run/v1", "run/v2"), "run.json: not a run: schema: Input should be 'run/v1'"),
        (TEXT.replace('"rows": 0', '"rows": "many"'), "run.json: not a run: data: rows: Input should be a valid int"),
        (TEXT[:90], "run.json: not a run: Invalid JSON"),
        ("[]", "run.json: not a run: Input should be"),
        ("\udcff", "run.json: not a run: Invalid JSON"),
    ],
)
def test_what_is_no_run_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError) as caught:
        read_run_facts(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*run\.json"):
        read_run_facts(tmp_path)
