"""Cases that a person types, and cases of what a box was really asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from devices.broker.journal import Journal
from devices.broker.runtime import simulated_runtime
from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.agent.asked import Asked, asked_in, new_conversation, note_asked
from edge_agent.agent.simulation import Simulation
from edge_agent.evaluation.own.case_writing import (
    CaseFile,
    conversations,
    judge,
    new_cases,
    parse_expected,
    parse_state,
)
from edge_agent.evaluation.own.own_cases import read_own_cases
from edge_agent.wire.chat_template import load_template
from tests.edge_agent.agent.test_agent import LIGHT_ON, answer, calls, play

HOME = load_site("home")
UNLOCK = ("lock_unlock", {"device": "front_door"})


def typing(*lines: str) -> Callable[[str], str | None]:
    waiting = list(lines)
    return lambda prompt: waiting.pop(0) if waiting else None


def journal_of(*turns: tuple[str, tuple[str, ...]]) -> list[Asked]:
    """What is written down of one conversation with scripted replies."""
    journal = Journal()
    runtime = simulated_runtime(World(HOME), journal)
    agent, conversation = Simulation(HOME, load_template("chatml")).agent_in(runtime), new_conversation()
    for ask, replies in turns:
        note_asked(runtime.broker, conversation, play(agent, ask, *replies)[0])
    return asked_in(journal.events())


ASKED = (
    ("kitchen light on", (calls(LIGHT_ON), answer("Done."))),
    ("open up the front door", (calls(UNLOCK), answer("Not done."))),
    ("is it warm?", (answer("It is 18.5 degrees."),)),
)


def test_typed_cases_are_checked_and_kept_one_by_one(tmp_path: Path) -> None:
    file, told = CaseFile(tmp_path / "mine.yaml", HOME), list[str]()
    read = typing(
        "lamp in the kitchen to 40", "kitchen_light.brightness=140", "kitchen_light.brightness=40", "",
        "open the garage", "confirm garage_door", "",
        "it's bright enough", "nothing", "kitchen_light.on=on, kitchen_light.brightness=60",
        "",
    )  # fmt: skip
    assert new_cases(file, read, told.append) == 3 and len(told) == 1 and "140" in told[0]
    first, second, third = read_own_cases(tmp_path / "mine.yaml", HOME)
    assert first.turns[0].expect == {"kitchen_light.brightness": 40}
    assert second.turns[0].needs == "garage_door" and second.turns[0].expect == {}
    assert third.start == {"kitchen_light.on": True, "kitchen_light.brightness": 60}
    again = CaseFile(tmp_path / "mine.yaml", HOME)
    assert new_cases(again, typing("fan to 2", "bathroom_fan.speed=2"), told.append) == 0  # ends before it is whole
    assert new_cases(again, typing("fan to 2", "bathroom_fan.speed=2", ""), told.append) == 1 and again.count == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "say what must be so"),
        ("kitchen_light", "is not device.property=value"),
        ("kitchen_lihgt.on=true", "no device is called kitchen_lihgt"),
        ("kitchen_light.colour=1", "no property of kitchen_light is called colour"),
        ("kitchen_light.on=3", "kitchen_light.on"),
        ("confirm garage", "no device is called garage"),
    ],
)
def test_what_the_site_has_not_is_said_at_once(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_expected(text, HOME)
    assert parse_state("front_door.locked=no , hall_thermostat.target_c=20.5", HOME) == {
        "front_door.locked": False,
        "hall_thermostat.target_c": 20.5,
    }


def test_what_a_box_did_right_becomes_a_case_with_the_state_before_it(tmp_path: Path) -> None:
    asked, told = journal_of(*ASKED), list[str]()
    assert [one.request for one in asked] == [ask for ask, _ in ASKED]
    file = CaseFile(tmp_path / "mine.yaml", HOME)
    assert judge(file, asked, typing("y", "y", "y"), told.append) == 1
    (case,) = read_own_cases(tmp_path / "mine.yaml", HOME)
    assert [turn.expect for turn in case.turns] == [{"kitchen_light.on": True, "kitchen_light.brightness": 100}, {}, {}]
    assert case.turns[1].needs == "front_door" and case.start["kitchen_light.on"] is False
    assert "  kitchen_light.on(): done" in told[0] and judge(file, asked, typing("y", "y", "y"), told.append) == 0


def test_what_was_wrong_ends_its_conversation_with_what_is_right(tmp_path: Path) -> None:
    file = CaseFile(tmp_path / "mine.yaml", HOME)
    read = typing("n", "porch_light=on", "porch_light.on=on")
    assert judge(file, journal_of(*ASKED), read, lambda line: None) == 1
    (case,) = read_own_cases(tmp_path / "mine.yaml", HOME)
    assert [(turn.ask, turn.expect) for turn in case.turns] == [("kitchen light on", {"porch_light.on": True})]
    for words, made in ((("y", "s"), 0), (("s",), 0), (("y", "y", "q"), 1), (("q",), 0)):
        assert judge(file, journal_of(*ASKED), typing(*words), lambda line: None) == made, words


def test_a_long_break_begins_a_new_conversation() -> None:
    def at(conversation: str, time_s: float) -> Asked:
        return Asked(conversation, time_s, "hello", "Hello.", {}, ())

    found = list(conversations([at("a", 0), at("b", 1), at("a", 100), at("a", 500), *[at("c", 9)] * 7]))
    assert [(one[0].conversation, len(one)) for one in found] == [("a", 2), ("a", 1), ("b", 1), ("c", 5), ("c", 2)]
    assert list(conversations([])) == []
