"""Compound requests: where they are taken apart, and what comes of their parts."""

from __future__ import annotations

import pytest

from devices.site.site import load_site
from edge_agent.agent.compound_requests import device_words, parts_of
from tests.edge_agent.agent.test_agent import LIGHT_ON, answer, calls, make, play

HOME = device_words(load_site("home"))
BLINDS = ("cover_close", {"device": "living_blinds"})
GARAGE = ("cover_open", {"device": "garage_door"})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("blinds down, fan off and heat at 22", ["blinds down", "fan off", "heat at 22"]),
        ("is the garage shut and put the fan on one", ["is the garage shut", "put the fan on one"]),
        ("how full is the tank? kitchen light off", ["how full is the tank?", "kitchen light off"]),
        ("could you put the fan on two and switch the porch light off?",
         ["could you put the fan on two", "switch the porch light off"]),
        ("Fan off, and while you are at it porch on", ["Fan off", "porch on"]),
        ("Porch off and later switch the fan off", ["Porch off", "switch the fan off"]),
        ("porch off then lock the front door", ["porch off", "lock the front door"]),
        ("it's late, you know. Porch off. Fan off.", ["it's late, you know. Porch off.", "Fan off."]),
        ("I can't see a thing, kitchen light on, blinds up",
         ["I can't see a thing, kitchen light on", "blinds up"]),
        ("Kitchen light to 21.5 percent and dim it then, fan off",
         ["Kitchen light to 21.5 percent and dim it then", "fan off"]),
        ("all the lights off and blinds down", ["all the lights off", "blinds down"]),
        ("is the door locked and is the porch light on", ["is the door locked", "is the porch light on"]),
        ("we have just left: fan off, porch off", ["we have just left: fan off", "porch off"]),
    ],
)  # fmt: skip
def test_whole_wishes_and_questions_are_taken_apart(text: str, parts: list[str]) -> None:
    assert parts_of(text, HOME) == parts


@pytest.mark.parametrize(
    "text",
    [
        "turn off the kitchen light and the porch light",  # one verb
        "kitchen light and bedroom lamp to 40",  # one value
        "dim the kitchen light and the bedroom lamp to 30",
        "are the blinds and the garage closed?",
        "is the porch light on and the kitchen light off",  # the second is no wish
        "the porch light is on and the garage is open",  # told
        "all lights off but not the porch, fan off",
        "if the tank is full, pump on and porch on",
        "pump on and porch on at ten o'clock tomorrow",
        "kitchen light on, no wait, bedroom lamp on",
        "porch on, kitchen the same",
        "porch off, later fan off",
        "kitchen light on",
        "hello",
        "",
        "fan on, porch on, kitchen on, blinds up, garage down, pump on, outlet on",  # too many
    ],
)
def test_what_hangs_together_stays(text: str) -> None:
    assert parts_of(text, HOME) == [text]


def test_each_part_is_worked_and_all_is_told_and_undone() -> None:
    agent, world = make()
    result, requests = play(
        agent, "Kitchen light on, blinds down", calls(LIGHT_ON), answer("x"), calls(BLINDS), answer("y")
    )
    assert result.ask == "Kitchen light on, blinds down" and result.stop_reason == "answer"
    assert result.answer == "The kitchen light is on. The living blinds are closed."
    assert [one.device for one in result.actions] == ["kitchen_light", "living_blinds"]
    assert requests[2].prompt.endswith("Request: blinds down<|im_end|>\n<|im_start|>assistant\n")
    told, _ = play(agent, "what did you just do?")
    assert told.answer == f"I did this. {result.answer}"
    assert {one.device for one in agent._done[0]} == {"kitchen_light", "living_blinds"}
    assert agent._done[1]["living_blinds"]["position"] == 100  # "undo" leads back to before the first part
    assert world.state["living_blinds"]["position"] == 0


def test_a_question_is_told_last_and_awaits_the_answer() -> None:
    agent, world = make()
    ask = "is the porch light on? blinds down"
    result, _ = play(agent, ask, calls(("light_on", {"device": "porch_light"})), calls(BLINDS), answer("y"))
    assert result.answer == "The living blinds are closed. Did you mean this: the porch light should be on?"
    assert (result.stop_reason, result.choices) == ("question", ("Yes", "No"))
    play(agent, "yes", answer("z"))
    assert world.state["porch_light"]["on"] is True


def test_a_sequence_ends_with_what_was_not_done() -> None:
    agent, world = make()
    result, _ = play(agent, "garage open then blinds down", calls(GARAGE), answer("x"))
    assert result.actions[0].status == "needs_confirmation"
    assert result.answer.endswith("I left this undone: blinds down.")
    assert world.state["living_blinds"]["position"] == 100
