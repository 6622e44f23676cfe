"""The rules baseline does what Home Assistant's sentences say, and nothing that they do not."""

from __future__ import annotations

import pytest

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from devices.site.tools import Command
from edge_agent.agent.intents import IntentRecognizer
from edge_agent.agent.simulation import Simulation
from edge_agent.evaluation.baselines.rules import NOT_UNDERSTOOD, NoEngine, RulesSimulation
from edge_agent.evaluation.own.own_cases import OwnCase, run_own_cases
from edge_agent.evaluation.own.own_report import table_of
from edge_agent.wire.chat_template import load_template
from tests.edge_agent.evaluation.own.test_own_cases import ScriptedEngine
from tests.home_with_areas import home_with_areas

pytest.importorskip("hassil")
HOME = load_site("home")
RECOGNIZER = IntentRecognizer(HOME)


@pytest.mark.parametrize(
    ("ask", "device", "action", "given"),
    [
        ("Turn on the kitchen light.", "kitchen_light", "on", {}),
        ("please switch off my bedroom lamp", "bedroom_lamp", "off", {}),
        ("set kitchen light brightness to 40 percent", "kitchen_light", "brightness", {"brightness": 40}),
        ("open the blinds to 30%", "living_blinds", "set", {"position": 30}),
        ("set the thermostat to 21 degrees", "hall_thermostat", "set", {"target_c": 21}),
        ("unlock the front door", "front_door", "unlock", {}),
        ("turn off the outlet in the workshop", "workshop_outlet", "off", {}),
    ],
)
def test_a_sentence_of_theirs_is_a_command(ask: str, device: str, action: str, given: dict[str, int]) -> None:
    assert RECOGNIZER.commands(ask) == (Command(device, action, given),)


@pytest.mark.parametrize(
    "ask",
    [
        "",
        "don't turn on the kitchen light",
        "turn on the kitchen light if it is dark",
        "turn on the cellar light",
        "set the thermostat to 99 degrees",
        "turn on the fan",  # it has a speed only
        "is the kitchen light on",
        "it's dark in the kitchen",
    ],
)
def test_what_no_sentence_says_whole_is_not_understood(ask: str) -> None:
    assert RECOGNIZER.commands(ask) == ()


def test_a_room_and_a_kind_are_all_devices_of_it() -> None:
    site = home_with_areas()
    found = IntentRecognizer(site).commands("turn off all lights")
    lights = [name for name, one in site.devices.items() if one.kind == "light"]
    assert [one.device for one in found] == lights and len(lights) > 1
    area = next(one.area for one in site.devices.values() if one.kind == "light" and one.area)
    some = IntentRecognizer(site).commands(f"turn on the lights in the {site.areas[area].title}")
    assert [one.device for one in some] == [name for name in lights if site.devices[name].area == area]


def test_the_agent_looks_for_sentences_before_it_asks_the_model() -> None:
    simulation = Simulation(HOME, load_template("chatml"), intents="en")
    turns = [
        {"ask": "turn on the kitchen light", "expect": {"kitchen_light.on": True}},
        {"ask": "open the garage", "expect": {}, "needs": "garage_door"},
        {"ask": "hello", "expect": {}},
    ]
    engine = ScriptedEngine("<think> t</think>Hello.")
    cases = [OwnCase.model_validate({"turns": turns})]
    known, asked, talk = run_own_cases(cases, simulation, engine)  # type: ignore[arg-type]
    assert (known.problems, known.answer, known.step) == ((), "The kitchen light is on.", "sentence")
    assert asked.problems == () and asked.step == "sentence"
    assert (talk.step, talk.answer) == ("model", "Hello.")
    (request,) = engine.asked
    assert "turn on the kitchen light" in request.prompt and '"light_on"' in request.prompt
    told = table_of([known, asked, talk])
    assert "by a known sentence: 2 of 2, 100.0%" in told and "asked back" not in told


def test_it_is_graded_like_a_model_and_goes_through_the_broker() -> None:
    simulation = RulesSimulation(HOME, load_template("chatml"), intents="en")
    cases = [
        OwnCase.model_validate({"ask": "turn on the kitchen light", "expect": {"kitchen_light.on": True}}),
        OwnCase.model_validate({"ask": "open the garage", "expect": {}, "needs": "garage_door"}),
        OwnCase.model_validate({"ask": "bit dark here", "expect": {"kitchen_light.on": True}}),
    ]
    done, asked, missed = run_own_cases(cases, simulation, NoEngine())
    assert (done.problems, done.answer) == ((), "The kitchen light is on.")
    assert asked.problems == () and "confirm" in asked.answer
    assert missed.answer == NOT_UNDERSTOOD and missed.problems
    assert World(HOME).state["kitchen_light"]["on"] is False


def test_a_language_that_they_have_not_is_refused() -> None:
    with pytest.raises(UsageError, match="no sentences in 'xx'"):
        IntentRecognizer(HOME, "xx")
    assert IntentRecognizer(HOME, "de").commands("schalte kitchen light an") == (Command("kitchen_light", "on", {}),)
