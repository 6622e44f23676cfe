"""The agent loop: steps, limits, and what a person is told."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from devices.broker.runtime import simulated_runtime
from devices.driver import Reading
from devices.simulation.world import SimulatedDriver, World
from devices.site.site import Site, load_site
from devices.site.tools import ToolCall
from edge_agent.agent.agent import Agent
from edge_agent.agent.session import action_lines
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.turn import NO_ANSWER, NOT_SURE, TurnLimits, TurnResult
from edge_agent.engine.engine import Completion, ContextFull, Limits, Request, StopReason
from edge_agent.grammar.grammar import Known
from edge_agent.grammar.thought_guide import ThoughtGuide
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.markers import END_THINK, THINK
from edge_agent.wire.messages import Message, body_of
from tests.den import den
from tests.home_with_areas import home_with_areas

SITE = load_site("home")


def completion(text: str, overruled: int = 0, stop_reason: StopReason = "end_of_turn") -> Completion:
    return Completion(text, (), stop_reason, 0, 0, 0, 0, overruled, (), 0.0, 0.0)


def calls(*items: tuple[str, dict[str, object]]) -> str:
    return body_of(Message("assistant", "", "t", tuple(ToolCall(name, values) for name, values in items)))  # type: ignore[arg-type]


def answer(text: str) -> str:
    return body_of(Message("assistant", text, "t"))


def play(agent: Agent, ask: str, *replies: str, overruled: int = 0) -> tuple[TurnResult, list[Request]]:
    """Run one turn on scripted replies; a missing or unused reply fails."""
    turn, requests, unused = agent.run(ask), [], list(replies)
    try:
        request = next(turn)
        while True:
            requests.append(request)
            assert unused, f"no reply left for: {request.prompt[-80:]!r}"
            reply = unused.pop(0)
            request = turn.send(completion(reply, 0 if unused else overruled))
    except StopIteration as stop:
        assert not unused
        return stop.value, requests


def make(limits: TurnLimits | None = None, site: Site = SITE) -> tuple[Agent, World]:
    world = World(site)
    simulation = Simulation(site, load_template("chatml"), limits or TurnLimits())
    return simulation.agent(world), world


LIGHT_ON = ("light_on", {"device": "kitchen_light"})
LIGHT_OFF = ("light_off", {"device": "kitchen_light"})
LOCK = ("lock_unlock", {"device": "front_door"})


def test_what_is_said_comes_from_the_read_back_and_not_from_the_model() -> None:
    agent, world = make()
    world.stuck.add("kitchen_light")
    result, _ = play(agent, "kitchen light", calls(LIGHT_ON), answer("The kitchen light is on."))
    assert result.actions[0].status == "failed"
    assert "did not change" in result.answer and "is on." not in result.answer
    assert result.model_answer == "The kitchen light is on."


def test_two_steps_see_each_others_results() -> None:
    agent, world = make()
    result, requests = play(agent, "on then off", calls(LIGHT_ON), calls(LIGHT_OFF), answer("Done."))
    assert [item.status for item in result.actions] == ["done", "done"]
    assert '"status":"done","device":"kitchen_light","on":true' in requests[1].prompt
    assert requests[2].prompt.startswith(requests[1].prompt)
    assert world.state["kitchen_light"]["on"] is False


def test_what_was_just_done_is_told_from_the_read_back_without_the_model() -> None:
    agent, _ = make()
    play(agent, "what did you do?", answer("Nothing."))
    play(agent, "kitchen light on", calls(LIGHT_ON), answer("Done."))
    play(agent, "thanks", answer("You are welcome."))
    result, requests = play(agent, "So what did you just do?")
    assert result.answer == "I did this. The kitchen light is on." and requests == []
    play(agent, "what did you do to the heating?", answer("Nothing."))  # is about something else
    play(agent, "unlock", calls(LOCK), answer("Done."))
    assert play(agent, "what did you do?")[0].answer == "I changed nothing."  # the question for a yes is not repeated


def test_a_model_that_loops_repeats_nothing() -> None:
    agent, _ = make(TurnLimits(model_replies=3))
    result, _ = play(agent, "on", *[calls(LIGHT_ON)] * 3)
    assert len(result.actions) == 1 and result.stop_reason == "step_limit"
    assert result.answer == f"The kitchen light is on. {NO_ANSWER}"


def test_without_a_yes_nothing_guarded_happens() -> None:
    agent, world = make()
    result, _ = play(agent, "unlock", calls(LOCK), answer("It is unlocked."))
    assert result.actions[0].status == "needs_confirmation" and world.state["front_door"]["locked"] is True
    assert result.answer.startswith("Please confirm")


def test_an_unusable_reply_does_nothing_and_is_not_remembered() -> None:
    agent, world = make()
    before = world.snapshot()
    result, _ = play(agent, "forget me", "<think>broken")
    assert result.stop_reason == "unusable" and result.answer == NO_ANSWER and not result.is_usable
    assert world.snapshot() == before
    _, requests = play(agent, "second", answer("Hello."))
    assert "forget me" not in requests[0].prompt


def test_an_answer_with_the_name_of_a_tool_is_not_said() -> None:
    agent, _ = make()
    result, _ = play(agent, "lock up", answer("Lock_lock is on."))
    assert (result.stop_reason, result.answer) == ("unsure", NOT_SURE)
    result, requests = play(agent, "the parcel?", answer("It has the code REF_7712."))
    assert result.answer == "It has the code REF_7712." and "Request: lock up" not in requests[0].prompt


def test_a_then_that_ends_a_request_is_not_shown() -> None:
    agent, _ = make()
    result, requests = play(agent, "put it on at 60 then", answer("Hello."))
    assert requests[0].prompt.endswith("Request: put it on at 60<|im_end|>\n<|im_start|>assistant\n")
    assert result.ask == "put it on at 60 then"


def test_a_call_that_the_grammar_changed_is_not_carried_out() -> None:
    agent, world = make()
    before = world.snapshot()
    result, _ = play(agent, "on", calls(LIGHT_ON), overruled=1)
    assert (result.stop_reason, result.answer, result.actions) == ("unsure", NOT_SURE, ())
    assert world.snapshot() == before
    result, _ = play(agent, "on then off", calls(LIGHT_ON), calls(LIGHT_OFF), overruled=1)
    assert result.answer == f"The kitchen light is on. {NOT_SURE}"
    assert world.state["kitchen_light"]["on"] is True
    result, _ = play(agent, "hi", answer("Hello."), overruled=1)
    assert (result.stop_reason, result.answer) == ("answer", "Hello.")


@pytest.mark.parametrize(("cut", "reason"), [("length", "unusable"), ("timeout", "time_limit")])
def test_calls_of_a_reply_that_was_cut_are_not_carried_out(cut: StopReason, reason: str) -> None:
    """What is forced after the last choice was not held against the model then, and a call may be missing."""
    agent, world = make()
    before, turn = world.snapshot(), agent.run("on")
    next(turn)
    with pytest.raises(StopIteration) as stop:
        turn.send(completion(calls(LIGHT_ON), stop_reason=cut))
    assert (stop.value.value.stop_reason, stop.value.value.answer) == (reason, NO_ANSWER)
    assert world.snapshot() == before


def test_the_conversation_is_remembered_and_only_appended_to() -> None:
    agent, _ = make()
    _, first = play(agent, "one", calls(LIGHT_ON), answer("Done."))
    _, second = play(agent, "two", answer("Hello."))
    assert second[0].prompt.startswith(first[-1].prompt)
    assert second[0].prompt.startswith(agent.prefix)


def test_old_turns_are_dropped_whole_and_the_prefix_stays() -> None:
    agent, _ = make(TurnLimits(remembered_messages=5))
    for number in range(4):
        _, requests = play(agent, f"ask {number}", calls(LIGHT_ON), answer("Done."))
    prompt = requests[0].prompt
    assert prompt.startswith(agent.prefix) and "ask 2" in prompt and "ask 1" not in prompt
    assert prompt[len(agent.prefix) :].split("<|im_end|>")[0].endswith("\nRequest: ask 2")


def test_time_limit() -> None:
    agent, _ = make(TurnLimits(timeout_s=0.0))
    result, _ = play(agent, "on")
    assert result.stop_reason == "time_limit" and result.answer == NO_ANSWER


def test_every_request_has_the_grammar_and_a_limit() -> None:
    agent, _ = make(TurnLimits(reply_tokens=99, timeout_s=5.0))
    _, requests = play(agent, "hi", answer("Hello."))
    assert requests[0].grammar is not None
    assert requests[0].limits.reply_tokens == 99 and 0 < (requests[0].limits.timeout_s or 0) <= 5
    assert requests[0].limits != Limits()


def test_thoughts_cite_the_state_that_was_shown_until_something_was_done() -> None:
    agent, world = make()
    world.broken.add("hall_motion")
    _, requests = play(agent, "on", calls(LIGHT_ON), answer("Done."))
    first, second = (request.grammar for request in requests)
    assert first is not None and second is not None
    for name, text in first.known.facts:
        assert re.search(rf"\n .*\b{name}\b[^:\n]*:{re.escape(text)}\n", requests[0].prompt)
    assert len(first.known.facts) == len(SITE.devices) and ("hall_motion", " unavailable") in first.known.facts
    assert second.known == Known() and second.lark == first.lark


class SmallEngine:
    """Answers at once, and has room for so many characters of prompt only."""

    def __init__(self, room: int, *replies: str) -> None:
        self.room, self._replies, self.prompts = room, list(replies), list[str]()

    def prime(self, prefix: str) -> bool:
        del prefix
        return False

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        (request,) = requests
        if len(request.prompt) > self.room:
            raise ContextFull("full")
        self.prompts.append(request.prompt)
        return [completion(self._replies.pop(0))]

    def close(self) -> None:
        pass


def test_a_full_context_forgets_the_oldest_turns_and_acts_once() -> None:
    agent, _ = make()
    first, _ = play(agent, "first wish", answer("No."))
    assert first.stop_reason == "answer" and not first.has_forgotten
    play(agent, "second wish", answer("No."))
    everything = len(next(agent.run("third wish")).prompt)
    engine = SmallEngine(everything - 1, calls(LIGHT_ON), answer("Done."))
    result = agent.ask(engine, "third wish")
    assert [item.status for item in result.actions] == ["done"] and result.stop_reason == "answer"
    assert result.has_forgotten
    assert "first wish" not in engine.prompts[0] and "third wish" in engine.prompts[0]
    assert all(prompt.startswith(agent.prefix) for prompt in engine.prompts)
    assert "second wish" in engine.prompts[0]  # only as much is forgotten as has to be


def test_a_request_that_alone_is_too_long_is_said_so() -> None:
    agent, _ = make()
    with pytest.raises(ContextFull):
        agent.ask(SmallEngine(10), "anything")


def test_a_call_for_an_area_is_a_command_a_device_each_with_its_own_read_back() -> None:
    agent, world = make(site=home_with_areas())
    for name in ("kitchen_light", "bedroom_lamp", "porch_light"):
        world.state[name]["on"] = True
    world.stuck.add("bedroom_lamp")
    everywhere = ("light_off", {"area": "everywhere", "except": ["kitchen_light"]})
    result, requests = play(agent, "all lights off except the kitchen", calls(everywhere), answer("Not done."))
    assert [(item.device, item.status) for item in result.actions] == [
        ("bedroom_lamp", "failed"),
        ("porch_light", "done"),
    ]
    assert world.state["kitchen_light"]["on"] and not world.state["porch_light"]["on"]
    assert '{"status":"partly done","failed":1,"done":1,"not done":"bedroom_lamp"}' in requests[1].prompt
    assert "bedroom lamp did not change" in result.answer and "porch light is off" in result.answer


def test_actions_that_are_alike_are_one_line_and_one_sentence() -> None:
    agent, _ = make(site=home_with_areas())
    result, requests = play(agent, "lights on", calls(("light_on", {"area": "everywhere"})), answer("Done."))
    assert action_lines(result.actions) == ["  kitchen_light, bedroom_lamp, porch_light on: done"]
    assert result.answer == "The kitchen light, bedroom lamp and porch light are on."
    assert '{"status":"done","done":3}' in requests[1].prompt


def test_a_call_that_leaves_no_device_moves_nothing() -> None:
    agent, world = make(site=home_with_areas())
    before = world.snapshot()
    none = ("light_on", {"area": "kitchen", "except": ["kitchen_light"]})
    result, requests = play(agent, "?", calls(none), answer("Nothing to do."))
    assert result.actions == () and world.snapshot() == before and result.answer == "Nothing to do."
    assert '"reason":"no device is left"' in requests[1].prompt


def test_a_scene_is_one_call_and_each_of_its_devices_is_told_of() -> None:
    agent, world = make(site=den())
    world.stuck.add("fan")
    world.state["fan"]["speed"] = 3
    call = calls(("scene_turn_on", {"scene": "movie_night"}))
    result, requests = play(agent, "movie night please", call, answer("Not done."))
    assert [(item.device, item.action, item.status) for item in result.actions] == [
        ("lamp", "brightness", "done"),
        ("fan", "set", "failed"),
        ("heating", "set_mode", "done"),
        ("heating", "set", "done"),
        ("player", "play", "done"),
    ]
    assert '{"status":"partly done","done":4,"failed":1,"not done":"fan"}' in requests[1].prompt
    assert "The lamp brightness is 20 percent (dim)." in result.answer and "it is 3 (high)" in result.answer


class SleepingSensors(SimulatedDriver):
    """Its sensors said what they know some time ago."""

    asleep_s = 0.0

    def read(self, device: str) -> dict[str, Reading]:
        shown = super().read(device)
        old = {name: Reading(one.value, one.time_s - self.asleep_s) for name, one in shown.items()}
        return old if device == "garden_soil" else shown


@pytest.mark.parametrize("site", [SITE, home_with_areas()], ids=["flat", "areas"])
def test_the_model_sees_how_old_a_reading_is(site: Site) -> None:
    world = World(site)
    driver = SleepingSensors(world)
    agent = Simulation(site, load_template("chatml")).agent_in(simulated_runtime(world, driver=driver))
    _, (fresh,) = play(agent, "hi", answer("Hello."))
    assert " garden_soil: moisture_pct=42 temperature_c=14.5\n" in fresh.prompt and " ago)" not in fresh.prompt
    driver.asleep_s = 3 * 3600
    old = "moisture_pct=42 (3 hours ago) temperature_c=14.5 (3 hours ago)"
    assert f" garden_soil: {old}\n" in agent.next_prompt_start()
    _, (asked,) = play(agent, "how wet is the soil?", answer("The garden soil moisture is 42 percent."))
    assert f" garden_soil: {old}\n" in asked.prompt and asked.prompt.count(" ago)") == 2
    assert asked.grammar and ("garden_soil", f" {old}") in asked.grammar.known.facts  # a thought cites it as it stands


def test_undo_is_given_what_was_before_the_last_commands() -> None:
    agent, world = make()
    play(agent, "kitchen light on", calls(LIGHT_ON), answer("Done."))
    _, requests = play(agent, "undo", answer("Done."))
    grammar = requests[0].grammar
    assert grammar and grammar.known.undo == "kitchen_light was on=false brightness=0, light_off"
    undo = f"{THINK} undo, {grammar.known.undo}.{END_THINK}"
    guide = ThoughtGuide(grammar.known)
    assert guide.forced(f"{THINK} undo,") == f" {grammar.known.undo}."
    assert guide.calls(undo) == calls(LIGHT_OFF).split(END_THINK)[1]
    play(agent, "thanks", answer("You are welcome."))
    _, requests = play(agent, "undo that", calls(LIGHT_OFF), answer("Done."))
    assert requests[0].grammar and requests[0].grammar.known.undo  # small talk in between undoes nothing
    assert world.state["kitchen_light"]["on"] is False


def test_what_runs_for_a_time_is_undone_by_its_end() -> None:
    agent, _ = make()
    play(agent, "water", calls(("valve_water", {"device": "garden_sprinkler", "minutes": 1})), answer("Done."))
    _, requests = play(agent, "undo", answer("Done."))
    assert requests[0].grammar and requests[0].grammar.known.undo.endswith("valve_close")
    agent, _ = make()
    _, requests = play(agent, "undo", answer("Done."))
    assert requests[0].grammar and requests[0].grammar.known.undo == ""


def undo_after(agent: Agent, *replies: str) -> str:
    play(agent, "do it", *replies, answer("Done."))
    _, requests = play(agent, "undo", answer("Done."))
    assert requests[0].grammar
    return requests[0].grammar.known.undo


def test_a_light_is_dimmed_back_and_what_was_so_already_stays() -> None:
    agent, world = make()
    world.state["kitchen_light"] |= {"on": True, "brightness": 40}
    dimmed = ("light_brightness", {"device": "kitchen_light", "brightness": 70})
    assert undo_after(agent, calls(dimmed)).endswith("light_brightness brightness=40, brightness: 0..100 percent")
    agent, world = make()
    world.state["kitchen_light"] |= {"on": True, "brightness": 100}  # which "on" would be already
    assert undo_after(agent, calls(dimmed)).endswith("light_brightness brightness=100, brightness: 0..100 percent")
    agent, world = make()
    world.state["porch_light"]["on"] = True
    both = calls(("light_off", {"device": "porch_light"}), LIGHT_OFF)
    assert undo_after(agent, both) == "porch_light was on=true, light_on"


def test_what_is_forbidden_undoes_nothing() -> None:
    gate = SITE.devices["front_door"].model_copy(deep=True)
    gate.actions["unlock"] = gate.actions["unlock"].model_copy(update={"risk": "forbidden"})
    site = SITE.model_copy(update={"devices": {**SITE.devices, "front_door": gate}})
    agent, world = make(site=site)
    world.state["front_door"]["locked"] = False
    assert undo_after(agent, calls(("lock_lock", {"device": "front_door"}))) == ""


def test_what_was_done_before_who_asked_went_away_is_noted() -> None:
    agent, _ = make()
    turn = agent.run("kitchen light on, then off")
    next(turn)
    turn.send(completion(calls(LIGHT_ON)))
    turn.close()
    assert play(agent, "what did you do?")[0].answer == "I did this. The kitchen light is on."


def test_what_needs_a_yes_is_not_told_as_done() -> None:
    agent, _ = make()
    play(agent, "both", calls(LIGHT_ON, LOCK), answer("Done."))
    assert play(agent, "what did you do?")[0].answer == "I did this. The kitchen light is on."


def test_it_is_what_was_spoken_of_last() -> None:
    agent, _ = make()
    _, requests = play(agent, "is the garage open?", answer("The garage door is closed."))
    assert requests[0].grammar and requests[0].grammar.known.recent == ()
    play(agent, "thanks", answer("You are welcome."))
    _, requests = play(agent, "kitchen light on, and open it", calls(LIGHT_ON), answer("Done."))
    assert requests[0].grammar and requests[0].grammar.known.recent == ("garage_door",)
    guide = ThoughtGuide(requests[0].grammar.known)
    assert guide.choices(f"{THINK} it is") == (" garage_door",)
    named = f"{THINK} both: kitchen light is kitchen_light, light_on; it is"
    assert guide.choices(named) == (" garage_door", " kitchen_light")
    _, requests = play(agent, "and off", calls(LIGHT_OFF), answer("Done."))
    assert requests[0].grammar and requests[0].grammar.known.recent == ("kitchen_light",)
