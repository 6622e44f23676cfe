"""pass^k over starting states: what is varied, what is not, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from devices.errors import GateError, UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.evaluation.own.own_cases import Graded, OwnCase, OwnTurn
from edge_agent.evaluation.own.own_report import to_plain
from edge_agent.evaluation.own.starting_states import in_other_states, pass_k, repeated, repeated_lines
from edge_agent.evaluation.report_page import render_own_cases
from edgewright import build_app

HOME = load_site("home")
LIGHT = OwnCase(start={"porch_light.on": True}, turns=(OwnTurn(ask="light", expect={"kitchen_light.on": True}),))


def graded(is_right: bool) -> Graded:
    return Graded("", "x", "y", (), () if is_right else ("wrong",))


def test_what_a_case_is_not_about_is_varied_and_nothing_else() -> None:
    cases = in_other_states(LIGHT, HOME, 40)
    assert len(cases) == 40 and all(case.turns == LIGHT.turns for case in cases)
    assert cases == in_other_states(LIGHT, HOME, 40) and cases[0] != cases[1]  # the same every time
    seen = {key: {case.start.get(key) for case in cases} for case in cases for key in case.start}
    assert seen.pop("porch_light.on") == {True}
    assert seen["front_door.locked"] == {True, False} and len(seen["living_blinds.position"]) > 20
    assert {HOME.devices[key.partition(".")[0]].kind for key in seen} == {
        "switch", "climate", "cover", "lock", "fan", "valve",
    }  # fmt: skip
    assert not {"garden_soil.moisture_pct", "rain_tank.level_pct", "hall_motion.motion"} & seen.keys()  # not settable
    for case in cases:
        for key, value in case.start.items():
            device, _, name = key.partition(".")
            assert HOME.devices[device].properties[name].problem_with(value) == ""
            World(HOME, {device: {name: value}})


def test_what_an_interlock_reads_stays_as_it_is() -> None:
    pump = HOME.devices["well_pump"]
    guard = pump.actions["run"].requires[0].model_copy(update={"property": "bathroom_fan.speed"})
    action = pump.actions["run"].model_copy(update={"requires": (guard,)})
    guarded = pump.model_copy(update={"actions": {**pump.actions, "run": action}})
    site = HOME.model_copy(update={"devices": {**HOME.devices, "well_pump": guarded}})
    assert "bathroom_fan.speed" in in_other_states(LIGHT, HOME, 1)[0].start
    assert "bathroom_fan.speed" not in in_other_states(LIGHT, site, 1)[0].start


def test_a_case_whose_answer_tells_the_state_has_one_state() -> None:
    assert in_other_states(OwnCase(turns=(OwnTurn(ask="is it on?", answer_has=(("off",),)),)), HOME, 3) == []
    lights = HOME.model_copy(update={"devices": {"kitchen_light": HOME.devices["kitchen_light"]}})
    assert in_other_states(OwnCase(turns=LIGHT.turns), lights, 3) == []  # nothing is left to be varied


def test_pass_k_is_the_chance_that_all_of_k_trials_succeed() -> None:
    assert pass_k([4, 2, 0], 4, 1) == pytest.approx((1 + 0.5 + 0) / 3)
    assert pass_k([4, 2, 0], 4, 2) == pytest.approx((1 + 1 / 6 + 0) / 3)
    assert pass_k([4, 2, 0], 4, 4) == pytest.approx(1 / 3)


def test_what_was_right_in_all_states_and_in_some_is_counted() -> None:
    two = OwnCase(turns=(OwnTurn(ask="both"), OwnTurn(ask="again")))
    only = OwnCase(turns=(OwnTurn(ask="only"),))
    own = [graded(True), graded(True), graded(False), graded(True)]  # LIGHT right, two wrong in its second turn, only
    extra = [graded(True), graded(True), *[graded(True)] * 4]  # both right in both other states
    found = repeated([LIGHT, two, only], own, [[LIGHT] * 2, [two] * 2, []], extra)
    assert (found.states, found.in_all.count, found.in_all.total, found.left_out) == (3, 1, 2, 1)
    assert found.shaky == (("both", 2),)
    assert found.pass_k == pytest.approx((5 / 6, 2 / 3, 1 / 2))
    first, second = repeated_lines(found)
    assert first.startswith("right in all of 3 starting states: 1 of 2, 50.0%") and "83.3%, 66.7%, 50.0%" in second
    page = render_own_cases(to_plain([("Q", own)], "home", "edgewright eval", "c.yaml", states=[found]))
    assert "In every starting state" in page and "<dt>2</dt><dd>both</dd>" in page
    none = repeated([only], [graded(True)], [[]], [])
    assert "no case could be begun" in repeated_lines(none)[0]
    assert "In every" not in render_own_cases(to_plain([("Q", own)], "h", "e", "c", states=[none]))


def test_the_command_begins_each_case_in_several_states(tmp_path: Path) -> None:
    pytest.importorskip("hassil", reason="the rules' package is not installed")
    path, out = tmp_path / "mine.yaml", tmp_path / "out"
    path.write_text(
        "- {ask: turn on the porch light, expect: {porch_light.on: true}}\n"
        "- {ask: some light out there, expect: {porch_light.on: true}}\n"
    )
    arguments = ["eval", "rules", "--site", "home", "--cases", str(path), "--out", str(out), "--states", "3"]
    done = CliRunner().invoke(build_app(), [*arguments, "--fail-under", "in_all_states=0.5"])
    assert done.exit_code == 0 and "right in all of 3 starting states: 1 of 2" in done.stdout, done.output
    (model,) = json.loads((out / "own_cases.json").read_text(encoding="utf-8"))["models"]
    assert model["all"]["total"] == 2 and model["states"]["pass_k"] == [0.5, 0.5, 0.5]
    failed = CliRunner().invoke(build_app(), [*arguments, "--fail-under", "in_all_states=0.6"])
    assert isinstance(failed.exception, GateError)
    refused = CliRunner().invoke(build_app(), ["eval", "rules", "--out", str(out), "--states", "3"])
    assert isinstance(refused.exception, UsageError) and "--states is of --cases" in str(refused.exception)
