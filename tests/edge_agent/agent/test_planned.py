"""A thought that names all calls is carried through without asking the model again."""

from __future__ import annotations

import pytest

from devices.site.tools import ToolCall
from edge_agent.wire.messages import Message, body_of
from tests.edge_agent.agent.test_agent import answer, make, play

ON = "kitchen light is kitchen_light, light_on"
DIM = "bedroom lamp is bedroom_lamp, light_brightness brightness=40, brightness: 0..100 percent"
LIGHT_ON = ToolCall("light_on", {"device": "kitchen_light"})
LAMP_40 = ToolCall("light_brightness", {"device": "bedroom_lamp", "brightness": 40})


def reply(thought: str, *calls: ToolCall) -> str:
    return body_of(Message("assistant", "", f"{thought}.", calls))


@pytest.mark.parametrize("thought", [f"both: {ON}; {DIM}", f"{ON}; then {DIM}"])
def test_what_was_planned_is_done_by_one_reply(thought: str) -> None:
    agent, world = make()
    calls = (LIGHT_ON,) if "then" in thought else (LIGHT_ON, LAMP_40)
    result, _ = play(agent, "the kitchen and the bedroom as usual", reply(thought, *calls))
    assert [one.status for one in result.actions] == ["done", "done"] and result.stop_reason == "answer"
    assert world.state["kitchen_light"]["on"] is True and world.state["bedroom_lamp"]["brightness"] == 40
    assert result.model_answer == "Done."


def test_what_is_remembered_is_as_in_training() -> None:
    agent, _ = make()
    play(agent, "the kitchen and then the bedroom as usual", reply(f"{ON}; then {DIM}", LIGHT_ON))
    _, requests = play(agent, "thanks", answer("You are welcome."))
    said = requests[0].prompt.split("<|im_start|>assistant\n")
    assert said[1].startswith(f"<think> {ON}; then {DIM}.</think><tool_call>")
    assert said[2].startswith(f"<think> done; then {DIM}.</think><tool_call>")
    assert said[3].startswith("<think> done.</think>Done.<|im_end|>")


def test_a_sequence_ends_where_a_step_is_not_done() -> None:
    agent, world = make()
    world.stuck.add("kitchen_light")
    result, _ = play(agent, "the kitchen and then the bedroom as usual", reply(f"{ON}; then {DIM}", LIGHT_ON))
    assert [one.status for one in result.actions] == ["failed"] and result.model_answer == "Not done."


@pytest.mark.parametrize("thought", [f"{ON}; then more", "kitchen light, light_on", DIM])
def test_a_thought_that_does_not_name_all_calls_leaves_the_rest_to_the_model(thought: str) -> None:
    agent, _ = make()
    result, _ = play(agent, "on", reply(thought, LIGHT_ON), answer("As you wish."))
    assert result.model_answer == "As you wish." and [one.device for one in result.actions] == ["kitchen_light"]
