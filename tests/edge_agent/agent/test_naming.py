"""Asking back where a name fits several devices: what is asked, by whom it is answered, and where nobody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.naming import SITES, false_questions, load_requests, problems_with
from devices.simulation.world import World
from devices.site.site import Site, load_site
from devices.site.tools import Command
from edge_agent.agent.agent import Agent
from edge_agent.agent.naming import Naming
from tests.edge_agent.agent.test_agent import answer, calls, make, play

TWO_LAMPS = """\
schema: site/v1
name: two
title: two lamps
devices:
  bedroom_lamp: {model: dimmable_light}
  desk_lamp: {model: dimmable_light}
  desk_fan: {model: fan}
  hall_fan: {model: fan}
scenes:
  lamp_scene: {devices: {desk_lamp: {"on": true}}}
"""
DESK_40 = ("light_brightness", {"device": "desk_lamp", "brightness": 40})
QUESTION = "Which one: the bedroom lamp or the desk lamp?"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    path: Path = tmp_path_factory.mktemp("site") / "two.yaml"
    path.write_text(TWO_LAMPS, encoding="utf-8")
    return load_site(path)


@pytest.fixture
def agent_and_world(site: Site) -> tuple[Agent, World]:
    return make(site=site)


def test_requests_by_hand() -> None:
    assert not [problem for asked in load_requests() for problem in problems_with(asked)]


@pytest.mark.parametrize("name", SITES)
def test_names_that_tell_are_never_asked_about(name: str) -> None:
    assert not {*false_questions(load_site(name), 60, seed=2)} - {""}


def test_a_question_names_few_devices_and_tells_them_apart() -> None:
    home = load_site("home")
    lamp = home.devices["bedroom_lamp"].model_copy(update={"title": "lamp", "aliases": ()})
    many = {f"l{number}": lamp.model_copy(update={"name": f"l{number}"}) for number in range(40)}
    question = Naming(home.model_copy(update={"devices": many})).question("lamp on", [Command("l7", "on", {})])
    assert question and question.candidates == tuple(many)
    listed = ", ".join(f"the lamp (l{number})" for number in range(5))
    assert question.text == f"Which one of 40: {listed} or another?"


def test_the_agent_asks_and_the_answer_is_done_as_asked(agent_and_world: tuple[Agent, World]) -> None:
    agent, world = agent_and_world
    before = world.snapshot()
    result, _ = play(agent, "dim the lamp to 40", calls(DESK_40))
    assert (result.answer, result.stop_reason, result.actions) == (QUESTION, "question", ())
    assert world.snapshot() == before
    result, requests = play(agent, "the bedroom one", answer("Done."))
    assert [(one.device, one.input, one.status) for one in result.actions] == [
        ("bedroom_lamp", {"brightness": 40}, "done")
    ]
    assert result.answer == "The bedroom lamp brightness is 40 percent."
    asked = "<think> lamp is bedroom_lamp or desk_lamp.</think>" + QUESTION
    assert asked in requests[0].prompt and '"device":"bedroom_lamp","brightness":40' in requests[0].prompt


def test_what_is_no_answer_is_a_request_like_any(agent_and_world: tuple[Agent, World]) -> None:
    agent, _ = agent_and_world
    play(agent, "lamp on", calls(("light_on", {"device": "desk_lamp"})))
    result, _ = play(agent, "desk fan to 2", calls(("fan_set", {"device": "desk_fan", "speed": 2})), answer("Done."))
    assert [one.device for one in result.actions] == ["desk_fan"]
    result, _ = play(agent, "the desk one", answer("Yes?"))  # too late
    assert result.answer == "Yes?"


def test_one_question_after_the_other(agent_and_world: tuple[Agent, World]) -> None:
    agent, world = agent_and_world
    fan = ("fan_set", {"device": "hall_fan", "speed": 2})
    result, _ = play(agent, "lamp to 40 and fan to 2", calls(DESK_40, fan))
    assert result.answer == QUESTION
    result, _ = play(agent, "both")
    assert result.answer == "Which one: the desk fan or the hall fan?" and not result.actions
    result, _ = play(agent, "the second one", answer("Done."))
    assert [one.device for one in result.actions] == ["bedroom_lamp", "desk_lamp", "hall_fan"]
    assert world.state["desk_fan"]["speed"] == 0 and world.state["hall_fan"]["speed"] == 2


def test_a_call_that_the_grammar_changed_is_asked_about_and_forgotten(agent_and_world: tuple[Agent, World]) -> None:
    agent, _ = agent_and_world
    result, _ = play(agent, "dim the lamp to 400", calls(DESK_40), overruled=1)
    assert result.answer == QUESTION
    result, _ = play(agent, "the desk one", answer("It takes 0 to 100."))
    assert not result.actions


def test_what_was_spoken_of_before_is_meant(agent_and_world: tuple[Agent, World]) -> None:
    agent, _ = agent_and_world
    off = ("light_off", {"device": "desk_lamp"})
    play(agent, "is the desk lamp on?", answer("The desk lamp is on."))
    result, _ = play(agent, "turn the lamp off", calls(off), answer("Done."))
    assert [one.device for one in result.actions] == ["desk_lamp"]
    result, _ = play(agent, "turn the lamp on", calls(("light_on", {"device": "bedroom_lamp"})))
    assert result.answer == QUESTION
    result, _ = play(agent, "the one on the desk, I guess", calls(off), answer("Done."))  # the model understands
    assert [one.device for one in result.actions] == ["desk_lamp"]


def test_a_scene_is_clear_whatever_its_devices_are_called(agent_and_world: tuple[Agent, World]) -> None:
    agent, _ = agent_and_world
    result, _ = play(agent, "the lamp scene", calls(("scene_turn_on", {"scene": "lamp_scene"})), answer("Done."))
    assert [(one.device, one.status) for one in result.actions] == [("desk_lamp", "done")]


def test_what_stops_waits_for_no_answer(site: Site) -> None:
    pump = load_site("home").devices["well_pump"]
    pumps = {
        name: pump.model_copy(update={"name": name, "title": name.replace("_", " ")}) for name in ("n_pump", "s_pump")
    }
    naming = Naming(site.model_copy(update={"devices": pumps}))
    assert naming.question("stop the pump", [Command("n_pump", "stop", {})]) is None
    assert naming.question("run the pump", [Command("n_pump", "run", {"seconds": 10})])
