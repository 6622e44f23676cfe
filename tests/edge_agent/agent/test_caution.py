"""Words that speak against acting: what is asked about first, and what is done without asking."""

from __future__ import annotations

import pytest

from devices.site.site import load_site
from edge_agent.agent.caution import is_of_elsewhere, names_another, speaks_against
from edge_agent.agent.naming import Naming
from tests.edge_agent.agent.test_agent import LIGHT_ON, answer, calls, make, play

SITE = load_site("home")
WORDS = Naming(SITE).words
KITCHEN, PORCH, GARAGE = "kitchen_light", "porch_light", "garage_door"


@pytest.mark.parametrize(
    ("ask", "devices"),
    [
        ("turn the kitchen light on in ten minutes", [KITCHEN]),
        ("kitchen light on at 7 pm", [KITCHEN]),
        ("at half past six close the garage", [GARAGE]),
        ("porch light on tomorrow", [PORCH]),
        ("later, open the garage", [GARAGE]),
        ("every morning the kitchen light", [KITCHEN]),
        ("when i get home i want the kitchen light on", [KITCHEN]),
        ("kitchen light off after dinner", [KITCHEN]),
        ("on saturdays the kitchen light", [KITCHEN]),
        ("kitchen light out at nine.", [KITCHEN]),
        ("as soon as we're gone, close the garage", [GARAGE]),
        ("don't open the garage", [GARAGE]),
        ("please do not touch the kitchen light", [KITCHEN]),
        ("never ever switch the porch light on", [PORCH]),
        ("all lights on except the porch", [KITCHEN, PORCH]),
        ("lights on apart from the outside light", [PORCH]),
        ("turn everything off but not the kitchen light", [KITCHEN]),
        ("leave the kitchen light alone", [KITCHEN]),
        ("keep the garage as it is", [GARAGE]),
        ("is the kitchen light on?", [KITCHEN]),
        ("which lights are burning", [PORCH]),
        ("how bright is the kitchen light right now?", [KITCHEN]),
        ("have the kids left the porch light on", [PORCH]),
        ("I'm in the car, could you check whether the garage is open", [GARAGE]),
        ("not sure if the kitchen light is off", [KITCHEN]),
        ("nobody asked for the garage to go up", [GARAGE]),
        ("I'd rather you didn't touch the kitchen light", [KITCHEN]),
        ("no dimming in the kitchen, thanks", [KITCHEN]),
        ("nobody touches the garage door while my bike leans on it", [GARAGE]),
        ("not yet with the kitchen light, I'm reading", [KITCHEN]),
        ("why is the garage open in the middle of the day?", [GARAGE]),
        ("should I be worried about the garage? The neighbour thought it wasn't closed.", [GARAGE]),
        ("wake me with the kitchen light", [KITCHEN]),
        ("if somebody rings put the porch light on", [PORCH]),
    ],
)
def test_what_the_words_speak_against_is_asked_about(ask: str, devices: list[str]) -> None:
    assert speaks_against(ask, devices, SITE.devices, WORDS)
    assert speaks_against(ask.upper(), devices, SITE.devices, WORDS)


@pytest.mark.parametrize(
    ("ask", "devices"),
    [
        ("turn the kitchen light on", [KITCHEN]),
        ("when it's below 19 now, kitchen light on", [KITCHEN]),
        ("all lights on except the porch", [KITCHEN]),
        ("turn off all the lights but leave the porch light alone", [KITCHEN]),
        ("don't forget the kitchen light, turn it on", [KITCHEN]),
        ("don't open the garage, turn the porch light on instead", [PORCH]),
        ("kitchen light on, if it isn't too much trouble", [KITCHEN]),
        ("see you later, lights off in the kitchen", [KITCHEN]),
        ("could you turn the kitchen light on?", [KITCHEN]),
        ("how about the porch light", [PORCH]),
        ("is it dark? then turn the porch light on", [PORCH]),
        ("what's in the tank, and switch the porch light on", [PORCH]),
        ("if the hall is below 19, kitchen light on", [KITCHEN]),
        ("not the porch, the kitchen light", [KITCHEN]),
        ("kitchen light to 40 in the evening colours", [KITCHEN]),
        ("I don't want to sit in the dark, kitchen light on", [KITCHEN]),
        ("why don't you close the garage", [GARAGE]),
        ("is it possible to close the garage", [GARAGE]),
        ("don't leave the garage open, close it", [GARAGE]),
        ("close the garage, besides turn the porch light on", [GARAGE, PORCH]),
        ("close the garage and later turn the porch light on", [GARAGE, PORCH]),
        ("I don't suppose you could close the garage", [GARAGE]),
        ("check if the garage is open and if so close it", [GARAGE]),
        ("see if you can close the garage", [GARAGE]),
        ("turn the porch light on and see if that helps", [PORCH]),
        ("close the garage, let me know if it worked", [GARAGE]),
        ("I don't know if it's too dark but turn the porch light on", [PORCH]),
        ("have the kitchen light switched on", [KITCHEN]),
        ("no more waiting, close the garage", [GARAGE]),
        ("I'd rather have the porch light on", [PORCH]),
        ("put the kitchen light on at 60.", [KITCHEN]),
        ("should I freeze? close the garage", [GARAGE]),
        ("why not switch the porch light on", [PORCH]),
    ],
)
def test_what_they_do_not_is_done(ask: str, devices: list[str]) -> None:
    assert not speaks_against(ask, devices, SITE.devices, WORDS)


def test_the_agent_asks_and_does_it_after_a_yes() -> None:
    agent, world = make()
    asked, _ = play(agent, "kitchen light on at 7 pm", calls(LIGHT_ON))
    assert asked.answer == "Did you mean this: the kitchen light should be on?" and asked.actions == ()
    done, _ = play(agent, "yes", answer("Done."))
    assert done.answer == "The kitchen light is on." and world.state[KITCHEN]["on"] is True


@pytest.mark.parametrize(
    ("ask", "device", "is_another"),
    [
        ("turn on the ac", "workshop_outlet", True),
        ("open the skylight", "porch_light", True),
        ("can you turn the humidifier on", "bathroom_fan", True),
        ("open the gate at the drive", "garden_sprinkler", True),
        ("a 5 minute timer for the pasta", KITCHEN, True),
        ("run the sprinkler on a timer of 5 minutes", "garden_sprinkler", False),
        ("turn on the socket", "workshop_outlet", False),  # what such a device is called anywhere
        ("draw the curtains, close the curtains", "living_blinds", False),
        ("turn the heat up", "hall_thermostat", False),
        ("turn the other one off", "porch_light", False),
        ("turn it off", "porch_light", False),
        ("turn off the appliances, all of them", "workshop_outlet", False),
        ("turn the kitchen light on", KITCHEN, False),
    ],
)
def test_a_thing_that_no_device_is_stands_for_none(ask: str, device: str, *, is_another: bool) -> None:
    naming = Naming(SITE)
    assert names_another(ask, [device], naming.vocabulary([device]), naming.words) == is_another


@pytest.mark.parametrize(
    ("ask", "is_asked"), [("not the porch though", False), ("not the porch, when I get home", True)]
)
def test_what_is_put_back_as_it_was_is_what_a_no_wants(ask: str, *, is_asked: bool) -> None:
    agent, world = make()
    world.state[PORCH]["on"] = True
    off = [("light_off", {"device": name}) for name in (KITCHEN, PORCH)]
    play(agent, "all lights off", calls(*off), answer("Done."))
    replies = (calls(("light_on", {"device": PORCH})), answer("Done."))
    result, _ = play(agent, ask, *replies[: 1 if is_asked else 2])
    assert world.state[PORCH]["on"] is not is_asked and result.answer.endswith("?") is is_asked


@pytest.mark.parametrize(
    ("ask", "device", "is_elsewhere"),
    [
        ("lock the back door", "front_door", True),
        ("close the fridge door, somebody left it open", "front_door", True),
        ("the Petersons' garage has been open for days", GARAGE, True),
        ("my boss keeps the office thermostat at 17", "hall_thermostat", True),
        ("close dad's garage", GARAGE, True),
        ("lock the front door", "front_door", False),
        ("the kitchen's ceiling light on", KITCHEN, False),
        ("it's dark, let's have the porch light", PORCH, False),
        ("the kitchen's light on", KITCHEN, False),
        ("put the garage down", GARAGE, False),
    ],
)
def test_a_thing_of_elsewhere_is_asked_about(ask: str, device: str, *, is_elsewhere: bool) -> None:
    naming = Naming(SITE)
    assert is_of_elsewhere(ask, [device], naming.vocabulary([device]), naming.words) == is_elsewhere
