"""The trial of a model on a site that is new to it: what is counted, refused and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from devices.errors import RefusedError
from devices.site.site import load_site
from edge_agent.engine.engine import Completion, Request
from edge_agent.evaluation.site_trial import (
    RECORD,
    TRIAL_CASES,
    TRIAL_SEED,
    SiteTrial,
    record_trial,
    recorded_trial,
    try_site,
)
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.messages import body_of
from finetune.data.generator import generate_reference
from tests.edge_agent.agent.test_agent import completion

HOME, TEMPLATE = load_site("home"), load_template("chatml")


class PrimedEngine:
    """Gives the reply that belongs to a prompt, or always the same."""

    def __init__(self, replies: dict[str, str] | str) -> None:
        self._replies = replies

    def prime(self, prefix: str) -> bool:
        return False

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [
            completion(self._replies if isinstance(self._replies, str) else self._replies[one.prompt])
            for one in requests
        ]


def test_the_reference_does_all_cases_and_silence_only_those_that_ask_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_agent.agent.agent.parts_of", lambda text, _: [text])  # the reference knows whole requests
    reference = list(generate_reference(HOME, TRIAL_CASES, TRIAL_SEED))
    replies = {
        TEMPLATE.render(messages[:at], add_generation_prompt=True): body_of(one)
        for _, messages in reference
        for at, one in enumerate(messages)
        if one.role == "assistant"
    }
    right = try_site(PrimedEngine(replies), HOME, TEMPLATE)  # type: ignore[arg-type]
    assert right == SiteTrial(TRIAL_CASES, TRIAL_CASES, 0)
    right.require("model", HOME, 1.0)
    idle = next(body_of(messages[-1]) for case, messages in reference if not case.commands)
    silent = try_site(PrimedEngine(idle), HOME, TEMPLATE)  # type: ignore[arg-type]
    assert silent.done
    assert silent.done < sum(not case.commands for case, _ in reference) and silent.wrong_moves == 0
    with pytest.raises(RefusedError, match=f"model does not know home well enough: {silent.done} of 40") as error:
        silent.require("model", HOME, 0.8)
    assert f"--accept {silent.share - 0.005:.2f}" in error.value.hint
    silent.require("model", HOME, float(f"{silent.share - 0.005:.2f}"))


def test_a_box_keeps_trials_and_a_damaged_record_is_none(tmp_path: Path) -> None:
    first, second = SiteTrial(30, 40, 1), SiteTrial(40, 40, 0)
    record_trial(tmp_path, "model site", first)
    record_trial(tmp_path, "model other", second)
    assert (recorded_trial(tmp_path, "model site"), recorded_trial(tmp_path, "model other")) == (first, second)
    assert recorded_trial(tmp_path, "new site") is None
    (tmp_path / RECORD).write_text("{", encoding="utf-8")
    assert recorded_trial(tmp_path, "model site") is None
    record_trial(None, "a bundle has no state", first)
    assert recorded_trial(None, "a bundle has no state") is None
