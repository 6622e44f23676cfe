"""Home Assistant's intents tests: files of our own in their format become a site and cases, or are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from devices.errors import UnavailableError, UsageError
from edge_agent.agent.simulation import Simulation
from edge_agent.evaluation.own.own_cases import OwnCase, run_own_cases
from edge_agent.evaluation.suites.ha_home import read_home
from edge_agent.evaluation.suites.ha_intents import (
    NO_DEVICE,
    NO_FACT,
    NOT_SAID_WHERE,
    NOTHING_FOR_IT,
    OTHER_HOME,
    OTHER_VALUE,
    WHICH_ONE,
    HaIntents,
    find_ha_intents,
    left_out_lines,
    read_ha_intents,
)
from edge_agent.wire.chat_template import load_template
from edgewright import build_app
from tests.edge_agent.agent.test_agent import answer, calls
from tests.edge_agent.evaluation.own.test_own_cases import ScriptedEngine

HOME = """
language: en
floors: [{name: Loft, id: loft_id}]
areas:
  - {name: Den, id: den_id, floor: loft_id}
  - {name: Yard, id: yard_id}
entities:
  - {name: Den Lamp, id: light.den_lamp, area: den_id, state: "off"}
  - {name: Globe, id: light.globe, area: den_id, state: "on"}
  - {name: Yard Light, id: light.yard, area: yard_id, state: "on"}
  - {name: Gate, id: cover.gate, area: yard_id, state: closed, attributes: {device_class: gate}}
  - {name: Awning, id: cover.awning, area: yard_id, state: open, attributes: {device_class: awning}}
  - {name: Cellar Door, id: lock.cellar, state: locked}
  - {name: Stove, id: climate.stove, area: den_id, state: heat, attributes: {current_temperature: 19}}
  - {name: Tent, id: climate.tent, area: yard_id, state: heat, attributes: {current_temperature: 9}}
  - {name: Hatch, id: binary_sensor.hatch, state: {in: closed, out: "off"}, attributes: {device_class: opening}}
  - {name: Tag, id: binary_sensor.tag, state: {in: low, out: "on"}, attributes: {device_class: battery}}
  - {name: Tag, id: binary_sensor.tag_shakes, state: {in: quiet, out: "off"}, attributes: {device_class: vibration}}
  - {name: Barrel, id: sensor.barrel, state: "71", attributes: {device_class: humidity}}
  - {name: Rocket, id: sensor.rocket, state: "4000", attributes: {device_class: temperature}}
  - {name: Radio, id: media_player.radio, area: den_id, state: idle}
  - {name: Gala, id: scene.gala}
  - {name: Ann, id: person.ann, state: home}
"""


def suite_of(folder: Path, *tests: str, home: str = HOME) -> HaIntents:
    """The suite of a folder with tests, each "sentence | intent | slots | response | context"."""
    place = folder / "tests" / "en"
    place.mkdir(parents=True, exist_ok=True)
    (place / "_fixtures.yaml").write_text(home)
    written = []
    for one in tests:
        sentence, name, slots, response, context = (*(part.strip() for part in one.split("|")), "", "", "")[:5]
        intent = {"name": name, "slots": json.loads(slots or "{}"), "context": json.loads(context or "{}")}
        written.append({"sentences": [sentence], "intent": intent, "response": response})
    (place / "some_tests.yaml").write_text(json.dumps({"language": "en", "tests": written}))
    return read_ha_intents(find_ha_intents(str(folder)))


def case_of(folder: Path, test: str) -> OwnCase:
    (case,) = suite_of(folder, test).cases
    return case


def test_the_home_becomes_a_site(tmp_path: Path) -> None:
    (tmp_path / "home.yaml").write_text(HOME)
    home = read_home(tmp_path / "home.yaml")
    site = home.site
    assert {name: area.floor for name, area in site.areas.items()} == {"den": "loft", "yard": ""}
    assert site.devices["den_lamp"].area == "den" and site.devices["den_lamp"].initial == {"on": False}
    assert site.devices["gate"].actions["open"].risk == "confirm" and "set" in site.devices["awning"].actions
    assert site.devices["tag"].initial == {"battery_low": True, "vibration": False}  # two entities of one name
    assert site.devices["barrel"].initial == {"humidity": 71}
    assert {one.name for one in home.entities if not one.device} == {"Rocket", "Ann"}  # too hot for a model; a person


@pytest.mark.parametrize(
    ("test", "start", "expect", "needs"),
    [
        ('glow, globe | HassTurnOn | {"name": "Globe"}', {"globe.on": False}, {"globe.on": True}, ""),
        ('dark in the den | HassTurnOff | {"area": "Den", "domain": "light", "name": "all"}',
         {"den_lamp.on": True, "globe.on": True}, {"den_lamp.on": False, "globe.on": False}, ""),
        ('loft bright | HassTurnOn | {"floor": "Loft", "domain": "light"}',
         {"den_lamp.on": False, "globe.on": False}, {"den_lamp.on": True, "globe.on": True}, ""),
        ('roll it in | HassTurnOff | {"domain": "cover", "device_class": "awning"}',
         {"awning.position": 100}, {"awning.position": 0}, ""),
        ('gate up | HassTurnOn | {"name": "Gate"} | | {"domain": "cover"}', {"gate.position": 0}, {}, "gate"),
        ('bolt the cellar | HassTurnOn | {"name": "cellar door", "domain": "lock"}',
         {"cellar_door.locked": False}, {"cellar_door.locked": True}, ""),
        ('unbolt it | HassTurnOff | {"name": "Cellar Door"}', {"cellar_door.locked": True}, {}, "cellar_door"),
        ('gala! | HassTurnOn | {"domain": "scene", "name": "Gala"}', {}, {}, "gala"),
        ('globe a fifth | HassLightSet | {"name": "Globe", "brightness": 20}',
         {"globe.brightness": 25}, {"globe.brightness": 20}, ""),
        ('den in white | HassLightSet | {"area": "Den", "color": "white"}',
         {"den_lamp.color": "red", "globe.color": "red"}, {"den_lamp.color": "white", "globe.color": "white"}, ""),
        ('stove to 44 | HassClimateSetTemperature | {"name": "Stove", "temperature": 44}',
         {"stove.target_c": 20}, {"stove.target_c": 44}, ""),
        ('hush, radio | HassMediaPause | {"name": "Radio"}',
         {"radio.on": True, "radio.state": "playing"}, {"radio.state": "paused"}, ""),
    ],
)  # fmt: skip
def test_a_sentence_is_what_must_be_so_afterwards_and_is_not_before(
    tmp_path: Path, test: str, start: dict[str, object], expect: dict[str, object], needs: str
) -> None:
    case = case_of(tmp_path, test)
    (turn,) = case.turns
    assert (turn.ask, case.kind) == tuple(part.strip() for part in test.split("|")[:2])
    assert (case.start, turn.expect, turn.needs) == (start, expect, needs)


def test_what_leaves_no_state_is_a_call(tmp_path: Path) -> None:
    (turn,) = case_of(tmp_path, 'skip it | HassMediaNext | {"name": "Radio"}').turns
    assert [(one.action, one.input) for one in turn.calls] == [("media_player.next", {})]


@pytest.mark.parametrize(
    ("test", "right", "wrong"),
    [
        ('bolted? | HassGetState | {"name": "Cellar Door", "state": "locked"} | Yes',
         "The cellar door is locked.", "The cellar door is unlocked."),
        ('awning out? | HassGetState | {"name": "Awning", "state": "closed"} | No, open',
         "The awning is open.", "The awning is closed."),
        ('weak tag? | HassGetState | {"name": "Tag", "device_class": "battery"} | Yes', "Its battery is low.", "No."),
        ('barrel? | HassGetState | {"name": "Barrel"} | Barrel is 71 %', "It is 71 percent.", "It is 171 percent."),
        ('den warm? | HassClimateGetTemperature | {"area": "Den"} | 19 degrees', "It is 19 degrees.", "It is 9."),
        ('how many shine? | HassGetState | {"domain": "light", "state": "on"} | 2', "There are two.", "There are 21."),
        ('who shines? | HassGetState | {"domain": "light", "state": "on"} | Globe and Yard Light',
         "The globe and the yard light are on.", "The globe is on."),
    ],
)  # fmt: skip
def test_a_question_moves_nothing_and_its_answer_has_the_facts(
    tmp_path: Path, test: str, right: str, wrong: str
) -> None:
    suite = suite_of(tmp_path, test)
    simulation = Simulation(suite.home.site, load_template("chatml"))
    for text, is_right in ((right, True), (wrong, False)):
        (graded,) = run_own_cases(suite.cases, simulation, ScriptedEngine(answer(text)))  # type: ignore[arg-type]
        assert (graded.problems == ()) is is_right
    light_on = calls(("light_on", {"device": "den_lamp"}))
    (graded,) = run_own_cases(suite.cases, simulation, ScriptedEngine(light_on, answer(right)))  # type: ignore[arg-type]
    assert graded.problems  # it moved something, or the agent asked back


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ('three minutes | HassStartTimer | {"minutes": 3}', NOTHING_FOR_IT),
        ('where is Ann | HassGetState | {"domain": "person", "name": "Ann"} | Home', NO_DEVICE),
        ('rocket? | HassGetState | {"name": "Rocket"} | 4000', NO_DEVICE),
        ('lights in the barn | HassTurnOn | {"area": "Barn", "domain": "light"}', NO_DEVICE),
        ('turn | HassTurnOn | {}', NO_DEVICE),
        ('lights | HassTurnOn | {"domain": "light", "area": "Den"} | | {"area": "Den"}', NOT_SAID_WHERE),
        ('40 degrees | HassClimateSetTemperature | {"temperature": 40}', WHICH_ONE),
        ('globe olive | HassLightSet | {"name": "Globe", "color": "olive"}', OTHER_VALUE),
        ('any hatch? | HassGetState | {"domain": "binary_sensor", "device_class": "opening"} | No', NO_FACT),
        ('which tag? | HassGetState | {"domain": "binary_sensor", "device_class": "battery"} | Tag', NO_FACT),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_counted_with_its_reason(tmp_path: Path, test: str, reason: str) -> None:
    suite = suite_of(tmp_path, test, 'glow, globe | HassTurnOn | {"name": "Globe"}')
    intent = test.split("|")[1].strip()
    assert len(suite.cases) == 1 and suite.left_out == {(intent, reason): 1}
    assert left_out_lines(suite) == ["1 sentences were not asked:", f"     1 of {intent}: {reason}"]


def test_every_sentence_is_asked_or_counted(tmp_path: Path) -> None:
    other = tmp_path / "tests" / "en" / "HassTurnOn" / "name_only.yaml"
    other.parent.mkdir(parents=True)
    other.write_text('entities: [{name: A, domain: light}]\ntests: [{sentences: ["a on", "a"], slots: {name: A}}]')
    suite = suite_of(tmp_path, 'in the den | HassTurnOn | {"area": "Den", "domain": "light"} | | {"area": "Den"}')
    assert len(suite.cases) == 1 and suite.left_out == {("HassTurnOn", OTHER_HOME): 2}


def test_what_is_missing_or_of_another_form_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no tests/en/_fixtures\.yaml in") as caught:
        find_ha_intents(str(tmp_path))
    assert caught.value.exit_code == 3 and "github.com/OHF-Voice/intents" in caught.value.hint
    with pytest.raises(UnavailableError):
        find_ha_intents()
    with pytest.raises(UsageError, match="no sentence is about"):
        suite_of(tmp_path, 'three minutes | HassStartTimer | {"minutes": 3}')
    with pytest.raises(UsageError, match=r"_fixtures\.yaml: not a home"):
        suite_of(tmp_path, home="entities: [{name: x}]")
    with pytest.raises(UsageError, match="no entity has a model"):
        suite_of(tmp_path, home="areas: []\nentities: [{name: Ann, id: person.ann}]")
    suite_of(tmp_path, 'glow, globe | HassTurnOn | {"name": "Globe"}')
    (tmp_path / "tests" / "en" / "more.yaml").write_text("tests: [{sentences: [a]}]")
    with pytest.raises(UsageError, match=r"more\.yaml: not tests"):
        read_ha_intents(find_ha_intents(str(tmp_path)))


def test_the_command_writes_a_page_that_says_what_was_not_asked(tmp_path: Path) -> None:
    pytest.importorskip("hassil", reason="the rules' package is not installed")
    suite_of(
        tmp_path,
        'turn on the globe | HassTurnOn | {"name": "Globe"}',
        'three minutes | HassStartTimer | {"minutes": 3}',
    )
    arguments = ["eval", "rules", "--suite", f"ha-intents={tmp_path}", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(build_app(), [*arguments, "--fail-under", "HassTurnOn=1"])
    assert done.exit_code == 0, done.output
    assert "1 of HassStartTimer" in done.stderr and "HassTurnOn        1 of 1" in done.stdout
    page = (tmp_path / "out" / "own_cases.html").read_text(encoding="utf-8")
    assert "What was not asked" in page and NOTHING_FOR_IT in page
    written = json.loads((tmp_path / "out" / "own_cases.json").read_text(encoding="utf-8"))
    assert written["left_out"] == [{"kind": "HassStartTimer", "reason": NOTHING_FOR_IT, "count": 1}]
    unknown = CliRunner().invoke(build_app(), ["eval", "rules", "--suite", "other", "--out", str(tmp_path)])
    assert isinstance(unknown.exception, UsageError) and "bfcl and ha-intents" in unknown.exception.hint
