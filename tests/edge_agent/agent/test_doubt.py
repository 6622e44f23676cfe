"""Asking back where the model is not sure: what waits for a yes, and what answers do."""

from __future__ import annotations

import math

import pytest

from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.agent.agent import Agent
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.turn import TurnResult
from edge_agent.agent.yes_or_no import LEFT
from edge_agent.engine.engine import Completion
from edge_agent.wire.chat_template import load_template
from tests.edge_agent.agent.test_agent import LIGHT_ON, answer, calls

SITE = load_site("home")
UNLOCK, STOP = ("lock_unlock", {"device": "front_door"}), ("switch_stop", {"device": "well_pump"})


def make(ask_below: float | None = 0.8) -> tuple[Agent, World]:
    world = World(SITE)
    return Simulation(SITE, load_template("chatml"), ask_below=ask_below).agent(world), world


def play(agent: Agent, ask: str, *replies: tuple[str, float]) -> TurnResult:
    """Run one turn on scripted replies, each with the probability that the model gave it."""
    turn, waiting = agent.run(ask), list(replies)
    try:
        next(turn)
        while True:
            text, probability = waiting.pop(0)
            logs = (math.log(probability) / 2,) * 2
            turn.send(Completion(text, (), "end_of_turn", 0, 0, 0, 0, 0, logs, 0.0, 0.0))
    except StopIteration as stop:
        assert not waiting
        result: TurnResult = stop.value
        return result


def test_a_call_that_the_model_is_sure_of_is_carried_out() -> None:
    agent, world = make()
    result = play(agent, "kitchen light on", (calls(LIGHT_ON), 0.9), (answer("Done."), 0.1))
    assert result.confidence == pytest.approx(0.9) and result.stop_reason == "answer"
    assert world.state["kitchen_light"]["on"] is True


@pytest.mark.parametrize("said", ["yes", "Yes, please do.", "yeah go ahead", "that's right", "OK"])
def test_a_call_that_it_is_not_sure_of_waits_for_a_yes(said: str) -> None:
    agent, world = make()
    asked = play(agent, "kitchen thing", (calls(LIGHT_ON), 0.7))
    assert (asked.stop_reason, asked.actions) == ("question", ())
    assert asked.answer == "Did you mean this: the kitchen light should be on?"
    assert world.state["kitchen_light"]["on"] is False
    done = play(agent, said, (answer("Done."), 0.1))
    assert done.answer == "The kitchen light is on." and world.state["kitchen_light"]["on"] is True


@pytest.mark.parametrize("said", ["no", "No thanks.", "don't", "nope, never mind"])
def test_a_no_leaves_it_alone_and_needs_no_model(said: str) -> None:
    agent, world = make()
    play(agent, "kitchen thing", (calls(LIGHT_ON), 0.7))
    assert play(agent, said).answer == LEFT
    assert world.state["kitchen_light"]["on"] is False
    assert play(agent, "yes", (answer("What?"), 1.0)).answer == "What?"  # it was asked once


@pytest.mark.parametrize("said", ["no, the porch light", "yes and the porch light", "yes no", "what?", "no to that"])
def test_any_other_answer_is_a_request_of_its_own(said: str) -> None:
    agent, world = make()
    play(agent, "kitchen thing", (calls(LIGHT_ON), 0.7))
    other = ("light_on", {"device": "porch_light"})
    play(agent, said, (calls(other), 0.95), (answer("Done."), 1.0))
    assert (world.state["kitchen_light"]["on"], world.state["porch_light"]["on"]) == (False, True)


@pytest.mark.parametrize("call", [UNLOCK, STOP])
def test_what_is_confirmed_anyway_and_what_stops_is_not_asked_about_first(call: tuple[str, dict[str, str]]) -> None:
    agent, _ = make()
    result = play(agent, "do it", (calls(call), 0.01), (answer("Done."), 1.0))
    assert result.stop_reason == "answer" and len(result.actions) == 1


def test_without_a_threshold_nothing_is_asked() -> None:
    agent, world = make(None)
    play(agent, "kitchen thing", (calls(LIGHT_ON), 1e-9), (answer("Done."), 1.0))
    assert world.state["kitchen_light"]["on"] is True


def test_several_wishes_are_read_out_as_one_question_and_done_together() -> None:
    agent, world = make()
    wanted = [
        ("light_on", {"device": "porch_light"}),
        ("light_brightness", {"device": "kitchen_light", "brightness": 40}),
        ("lock_lock", {"device": "front_door"}),
        ("switch_on", {"device": "workshop_outlet"}),
    ]
    asked = play(agent, "those", (calls(*wanted[:2]), 0.5))
    assert asked.answer == "Did you mean this: the porch light should be on and the kitchen light should be 40 percent?"
    many = play(make()[0], "all that", (calls(*wanted), 0.5))
    assert many.answer.endswith("and 2 things more?")
    play(agent, "yes", (answer("Done."), 1.0))
    assert world.state["kitchen_light"]["brightness"] == 40
