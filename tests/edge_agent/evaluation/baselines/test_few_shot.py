"""Worked examples stand in every prompt of an untrained model, and are no held-out request's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.evaluation.baselines.few_shot import FewShot
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.models.model import Model, find_model, with_shots
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.messages import Message, user_message

HOME = load_site("home")
CONTRACT = contract_of(HOME, load_template("chatml"))


def row(ask: str, kind: str, system: str = CONTRACT.system_text) -> str:
    state = World(HOME).snapshot()
    user = user_message(ask, state, "08:00", CONTRACT.words)
    messages = [Message("system", system), user, Message("assistant", "Hello.", "small talk.")]
    turns = [{"role": one.role, "text": one.text, "thought": one.thought} for one in messages]
    return json.dumps({"kinds": [kind], "messages": turns})


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def asks(messages: tuple[Message, ...]) -> list[str]:
    return [one.text.rsplit("Request: ", 1)[-1] for one in messages if one.role == "user"]


def test_each_kind_comes_before_a_second_of_any_and_no_held_out_request(tmp_path: Path) -> None:
    rows = [row("hi", "talk"), row("hello", "talk"), row("Is it on?", "question"), row("good day", "greeting")]
    path = write(tmp_path / "rows.jsonl", *rows)
    assert asks(FewShot(path, 3).messages(CONTRACT, set())) == ["hi", "Is it on?", "good day"]
    assert asks(FewShot(path, 3).messages(CONTRACT, {"is it ON?"})) == ["hi", "good day", "hello"]
    with pytest.raises(UsageError, match="has 3 examples, not 4"):
        FewShot(path, 4).messages(CONTRACT, {"hi"})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (row("hi", "talk", "You control a shop."), "rows.jsonl:1: an example of another site"),
        ('{"messages": [{"role": "cook"}]}', "rows.jsonl:1: not a conversation"),
        ("[1]", "a JSON array"),
        ('{"messages": []}', "rows.jsonl:1"),
        ("{", "rows.jsonl:1"),
    ],
)
def test_what_is_no_example_is_one_line(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        FewShot(write(tmp_path / "rows.jsonl", line), 1).messages(CONTRACT, set())


def test_only_what_is_untrained_gets_them_and_has_room_for_them(tmp_path: Path) -> None:
    few_shot = FewShot(write(tmp_path / "rows.jsonl", row("hi", "talk"), row("Is it on?", "question")), 2)
    base, tuned = Model("base", "base", "x", template="chatml"), Model("Q8_0", "quant", "y", template="chatml")
    plain, shown, last = with_shots([base, tuned], few_shot, HOME, ())
    assert (plain, last) == (base, tuned)
    assert shown.label == "base, 2 shots"
    before, after = (CaseSimulation(HOME, load_template("chatml"), shots=one.shots) for one in (base, shown))
    agent = after.agent(World(HOME))
    request = next(agent.run("good morning"))
    assert request.prompt.startswith(agent.prefix)
    assert agent.prefix.count("Request: ") == 2 and request.prompt.count("Request: ") == 3
    assert after.context_tokens > before.context_tokens
    with pytest.raises(UsageError, match="no model here is untrained"):
        with_shots([tuned], few_shot, HOME, ())


def test_a_base_is_known_by_its_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "edgewright" / "bases" / "smollm2"
    folder.parent.mkdir(parents=True)  # other bases are there
    with pytest.raises(UsageError, match="is not on this machine yet") as error:
        find_model("smollm2", HOME)
    assert "edgewright base import smollm2" in error.value.hint
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert find_model("smollm2", HOME).path == str(folder)
