"""Scenes: one call, a command for each device with its own verdict; what no action does is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.simulation.world import SimulatedDriver, World
from devices.site.schema import Value
from devices.site.tools import Command, ToolCall, commands_of, tools_of
from edge_agent.grammar.reply_grammar import reply_grammar
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.spelling import usual_spelling
from edgewright import main
from tests.den import TEXT, den

SCENES = {"type": "string", "enum": ["movie_night", "bedtime"]}


def test_a_scene_is_one_tool_and_a_command_for_what_each_device_needs() -> None:
    tools = tools_of(den())
    tool = tools[-1]
    assert tool.name == "scene_turn_on" and tool.json_schema()["properties"] == {"scene": SCENES}
    commands = commands_of(ToolCall("scene_turn_on", {"scene": "movie_night"}), tools)
    assert commands == [
        Command("lamp", "brightness", {"brightness": 20}),
        Command("fan", "set", {"speed": 1}),
        Command("heating", "set_mode", {"mode": "heat"}),  # in the order of the file
        Command("heating", "set", {"target_c": 21}),
        Command("player", "play", {}),
    ]
    wrong: list[dict[str, Value | list[str]]] = [{"scene": "party"}, {}, {"scene": "bedtime", "device": "lamp"}]
    for arguments in wrong:
        assert "has no scene" in commands_of(ToolCall("scene_turn_on", arguments), tools)
    contract = contract_of(den(), load_template("chatml"))
    assert "\n scene_turn_on(scene: movie_night | bedtime)" in contract.system_text
    assert "movie_night" in reply_grammar(tools).lark
    assert usual_spelling("TURN ON MOVIE NIGHT", contract.words) == "Turn on movie night"


def test_each_command_of_a_scene_has_its_own_verdict_and_read_back() -> None:
    world, journal = World(den()), Journal()
    broker = Broker(den(), SimulatedDriver(world), journal, clock=lambda: world.time_s, confirm=lambda _: False)
    commands = commands_of(ToolCall("scene_turn_on", {"scene": "bedtime"}), tools_of(den()))
    assert not isinstance(commands, str)
    outcomes = [broker.execute(command) for command in commands]
    assert [outcome.status for outcome in outcomes] == ["done", "done", "needs_confirmation"]  # a garage door asks
    assert world.state["front_door"]["locked"] is True and world.state["garage"]["position"] == 0
    assert [event.event for event in journal.events()].count("PROPOSED") == 3


def test_a_person_turns_a_scene_on_and_hears_of_each_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "den.yaml"
    path.write_text(TEXT, encoding="utf-8")
    assert main(["devices", "list", "--site", str(path)]) == 0
    assert "bedtime      scene          lamp, front_door, garage\n" in capsys.readouterr().out
    call = ["devices", "call", "bedtime", "turn_on", "--site", str(path)]
    assert main(call) == 4
    printed = capsys.readouterr()
    assert [line.partition(":")[0] for line in printed.out.splitlines()] == ["done", "done", "needs confirmation"]
    assert "garage open: needs confirmation; hint: add --yes" in printed.err
    assert main([*call, "--yes"]) == 0 and "The garage is open." in capsys.readouterr().out
    assert main(["devices", "call", "bedtime", "open", "--site", str(path)]) == 2
    path.write_text(TEXT.replace("aliases: [cinema]", "aliases: [Desk lamp]"), encoding="utf-8")
    capsys.readouterr()
    assert main(["devices", "check", str(path)]) == 2
    assert "desk_lamp and the scene movie_night are both called 'desk lamp'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fan: {speed: low}", "fan: {speed: 9}", ":11: scene movie_night: fan: speed 9 is outside 0 to 3"),
        ("fan: {speed: low}", "fan: {sped: 1}", "fan: it has no property 'sped'; did you mean speed?"),
        ("fan: {speed: low}", "fann: {speed: 1}", ":11: scene movie_night: there is no fann; hint: did you mean fan?"),
        ("fan: {speed: low}", "fan: {}", "fan: the scene says nothing of it"),
        ("mode: heat, target_c: 21", "temperature_c: 21", ":12: scene movie_night: heating: no action makes its temp"),
        (
            "mode: heat, target_c: 21",
            "target_c: 20.2",
            "heating: no action makes its target_c 20.2; set: target_c 20.2 is",
        ),
        (
            '"on": true, brightness: dim',
            '"on": false, brightness: dim',
            "no action makes its brightness 20 with the rest",
        ),
    ],
)
def test_what_no_action_does_is_refused_with_its_line(
    old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "den.yaml"
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    assert main(["devices", "check", str(path)]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_a_scene_of_another_system_is_a_device_whose_action_is_a_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("schema: site/v1\nname: own\ntitle: a house\ndevices: {party: {model: scene}}\n", encoding="utf-8")
    call = ["devices", "call", "party", "activate", "--site", str(path)]
    assert main(call) == 4 and "needs confirmation" in capsys.readouterr().out  # nobody knows what is in it
    assert main([*call, "--yes"]) == 0 and capsys.readouterr().out == "done: The scene was turned on.\n"
