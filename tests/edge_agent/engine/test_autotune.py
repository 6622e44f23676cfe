"""The quickest settings win, are saved, and are used for the model and the machine they were measured with only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.engine.autotune import TUNING_FILE, Trial, Tuning, load_tuning, save_tuning, time_calls, tune

HERE = {"model": "one", "processor": "this"}


def test_the_quickest_of_each_setting_is_taken() -> None:
    trials: list[Trial] = []

    def measure(tuning: Tuning) -> Trial:
        seconds = {None: 1.0, 1: 1.2, 2: 0.8, 3: 0.8, 4: 0.79}[tuning.threads]  # 4 is not worth it
        seconds *= 0.7 if tuning.flash_attention is False else 1.0
        return Trial(tuning, seconds + (0.2 if tuning.draft_tokens else 0.0), 1000)

    assert tune(measure, 4, trials.append) == Tuning(threads=2, flash_attention=False)
    assert trials[0].tuning == Tuning() and len(trials) >= 8


def test_they_are_saved_for_one_model_and_machine(tmp_path: Path) -> None:
    tuning = Tuning(threads=3, flash_attention=False, draft_tokens=4)
    save_tuning(tmp_path, tuning, HERE)
    assert load_tuning(tmp_path, HERE) == tuning
    assert load_tuning(tmp_path, HERE | {"model": "two"}) == Tuning()
    assert load_tuning(tmp_path / "none", HERE) == load_tuning(None, HERE) == Tuning()


@pytest.mark.parametrize("change", [
    {"threads": 0}, {"threads": "2"}, {"batch_tokens": 0}, {"batch_tokens": None}, {"kv_type": "q4_0"},
    {"flash_attention": 3}, {"mmap": 1}, {"mlock": None}, {"draft_tokens": -1}, {"threads": True}, {"more": 1},
])  # fmt: skip
def test_a_file_that_says_nonsense_is_not_used(tmp_path: Path, change: dict[str, object]) -> None:
    save_tuning(tmp_path, Tuning(), HERE)
    plain = json.loads((tmp_path / TUNING_FILE).read_text(encoding="utf-8"))
    plain["tuning"] |= {"threads": 2} | change
    (tmp_path / TUNING_FILE).write_text(json.dumps(plain), encoding="utf-8")
    assert load_tuning(tmp_path, HERE) == Tuning()


def test_calls_are_timed_once_each() -> None:
    seen: list[str] = []
    assert time_calls(seen.append, list("abcdefg")) >= 0 and time_calls(seen.append, ["h"]) >= 0
    assert "".join(seen) == "abcdefgh"


@pytest.mark.parametrize("text", ["one", "other"])
def test_rounded_keys_and_values_are_taken_only_if_they_say_the_same(text: str) -> None:
    def measure(tuning: Tuning) -> Trial:
        return Trial(tuning, 0.5, 1, text) if tuning.kv_type == "q8_0" else Trial(tuning, 1.0, 1, "one")

    assert tune(measure, 1, lambda trial: None).kv_type == ("q8_0" if text == "one" else "f16")
