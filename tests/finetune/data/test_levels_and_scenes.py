"""Conversations about levels, a bit more or less, and scenes: what is said is what is called."""

from __future__ import annotations

import re
from random import Random

from devices.broker.runtime import simulated_runtime
from devices.simulation.world import World
from devices.site.device import Device
from devices.site.phrasings import load_phrasings
from devices.site.schema import DataSchema
from devices.site.site import load_models
from devices.site.tools import Command, commands_of
from finetune.data.generator import Stage, carry_out, generate_cases, generate_rows, random_world
from finetune.data.plan_kinds import MAKERS
from finetune.data.random_sites import random_site
from finetune.data.scene import Plan, Scene
from tests.den import den

STAGE = Stage.of(den())


def plans(kind: str, count: int, *, held_out: bool = False) -> list[tuple[Plan, World]]:
    rng, found = Random(kind), list[tuple[Plan, World]]()
    while len(found) < count:
        world = random_world(STAGE.site, rng)
        plan = MAKERS[kind][1](Scene(STAGE.site, STAGE.tools, world.snapshot(), rng, held_out))
        if plan:
            found.append((plan, world))
    return found


def test_a_level_that_is_said_is_the_number_that_is_called() -> None:
    said = dict.fromkeys(("low", "medium", "high", "lowest", "highest"), 0)
    for row in generate_rows(den(), 400, 1, kinds=dict.fromkeys(MAKERS, 0.0) | {"call": 1.0, "area": 1.0}):
        if (call := row.messages[2].calls[0]).name != "fan_set":
            continue
        ask = row.messages[1].text.rsplit("Request: ", 1)[1].lower()
        for word, speed in {"low": 1, "medium": 2, "high": 3, "lowest": 1, "highest": 3}.items():
            if re.search(rf"\b{word}\b", ask):
                said[word] += 1
                assert call.arguments["speed"] == speed, ask
    assert all(said.values()), said
    thought = next(plan.thought for plan, _ in plans("call", 200) if "fan_set" in plan.thought)
    assert thought.endswith("speed: 0..3 (low 1, medium 2, high 3).")


def test_half_open_is_the_half_that_is_declared() -> None:
    schema = DataSchema(type="integer", minimum=0, maximum=90, unit="percent", levels={"half": 40})
    blinds = load_models()["blinds"] | {"actions": {"set": load_models()["blinds"]["actions"]["set"]}}
    blinds = blinds | {"properties": {"position": schema.model_dump()}}
    blinds["actions"]["set"] = blinds["actions"]["set"] | {"input": {"position": schema.model_dump()}}
    site = den().model_copy(update={"devices": {"shade": Device(name="shade", title="shade", **blinds)}, "scenes": {}})
    asks = {
        row.messages[1].text.rsplit("Request: ", 1)[1].lower(): row.messages[2].calls[0].arguments["position"]
        for row in generate_rows(site, 60, 1, kinds=dict.fromkeys(MAKERS, 0.0) | {"call": 1.0})
    }
    halves = {ask: position for ask, position in asks.items() if re.search(r"\bhalf open\b", ask)}
    assert halves and set(halves.values()) == {40}


def test_a_bit_more_starts_from_where_the_device_is() -> None:
    words = load_phrasings()
    ups = {*words.more, *(word for one in words.arguments.values() for word in one.more)}
    ends = 0
    for plan, world in plans("bit", 120) + plans("bit", 20, held_out=True):
        before = world.snapshot()
        is_up = any(re.search(rf"\b{word}\b", plan.ask) for word in ups)
        if not plan.steps:
            ends += 1
            assert ("highest" if is_up else "lowest") in plan.answer
            continue
        _, outcomes = carry_out(plan, STAGE, world)
        command = outcomes[0].command
        ((name, value),) = command.input.items()
        assert outcomes[0].status == "done" and (float(value) > float(before[command.device][name])) == is_up, plan.ask
    assert ends


def test_a_scene_is_one_call_and_the_case_has_all_its_commands() -> None:
    for plan, world in plans("scene", 40):
        (call,) = plan.steps[0]
        commands = commands_of(call, STAGE.tools)  # type: ignore[arg-type]
        messages, outcomes = carry_out(plan, STAGE, world)
        assert [outcome.command for outcome in outcomes] == commands
        assert '"status"' in messages[2].text and "PROPOSED" not in messages[2].text
        if plan.is_confirmed or all(outcome.status == "done" for outcome in outcomes):
            wanted = STAGE.site.scenes[str(call.arguments["scene"])].devices  # type: ignore[union-attr]
            assert all(
                world.state[device][key] == STAGE.site.devices[device].properties[key].levels.get(str(value), value)
                for device, values in wanted.items()
                for key, value in values.items()
            )
    cases = [case for case in generate_cases(den(), 150, 1) if case.kind == "scene"]
    assert cases and all(len(case.commands) >= 3 for case in cases)
    assert all("There is no" in plan.answer for plan, _ in plans("missing_scene", 5))


def test_random_sites_have_levels_steps_scenes_and_every_kind() -> None:
    sites = [random_site(Random(seed)) for seed in range(150)]
    schemas = [
        schema
        for site in sites
        for device in site.devices.values()
        for action in device.actions.values()
        for schema in action.input.values()
    ]
    assert any(schema.levels for schema in schemas) and any(schema.step for schema in schemas)
    assert 0.2 < sum(bool(site.scenes) for site in sites) / len(sites) < 0.6
    assert all(commands for site in sites for tool in Stage.of(site).tools for commands in tool.scenes.values())
    kinds = {device.kind for site in sites for device in site.devices.values()}
    assert {"humidifier", "media_player", "vacuum", "lawn_mower", "alarm_control_panel", "water_heater", "number",
            "select", "button", "scene"} <= kinds  # fmt: skip


def test_the_low_target_is_below_the_high_one_in_states_and_requests() -> None:
    made = (device for seed in range(300) for device in random_site(Random(seed)).devices.values())
    device = next(device for device in made if "set_range" in device.actions)
    device = device.model_copy(update={"area": ""})
    site = den().model_copy(update={"devices": {device.name: device}, "scenes": {}, "areas": {}})
    stage, rng, refused = Stage.of(site), Random(1), 0
    for _ in range(60):
        world = random_world(site, rng)
        assert world.state[device.name]["target_low_c"] <= world.state[device.name]["target_high_c"]
        scene = Scene(site, stage.tools, world.snapshot(), rng, False)
        given = scene.arguments_for(device, device.actions["set_range"])
        assert float(given["target_low_c"]) < float(given["target_high_c"])
        plan = MAKERS["policy"][1](scene)
        if plan:  # said the wrong way round
            assert [outcome.status for outcome in carry_out(plan, stage, world)[1]] == ["refused"]
            refused += 1
    assert refused
    broker = simulated_runtime(World(site)).broker
    outcome = broker.execute(Command(device.name, "set_range", {"target_low_c": 22, "target_high_c": 20}))
    assert outcome.status == "refused" and "target_low_c 22 is not below target_high_c 20" in outcome.report
