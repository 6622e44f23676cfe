"""Sites: what is read, what is refused, and how a person is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.site.phrasings import SpokenAction
from devices.site.schema import DataSchema
from devices.site.site import MODEL_WORDS, SITES_FOLDER, find_name, load_models, load_site, shared_names
from devices.yaml_file import shipped_names
from edgewright import main

HOME = {
    "kitchen_light": {"on", "brightness"},
    "bedroom_lamp": {"on", "brightness"},
    "porch_light": {"on"},
    "hall_thermostat": {"target_c", "temperature_c"},
    "living_blinds": {"position"},
    "front_door": {"locked"},
    "garage_door": {"position"},
    "bathroom_fan": {"speed"},
    "garden_sprinkler": {"open"},
    "garden_soil": {"moisture_pct", "temperature_c"},
    "well_pump": {"running"},
    "rain_tank": {"level_pct"},
    "workshop_outlet": {"on"},
    "hall_motion": {"motion"},
}
SMALL = """\
schema: site/v1
name: small
title: a test bench
devices:
  lamp:
    model: light
  tank:
    model: level_sensor
    initial: {level_pct: 50}
  pump:
    model: pump
    actions:
      run: {requires: [{property: tank.level_pct, above: 20}]}
"""


def write_site(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_home_has_the_devices_and_properties_that_cases_are_written_against() -> None:
    site = load_site("home")
    assert {name: set(device.properties) for name, device in site.devices.items()} == HOME


def test_home_limits() -> None:
    devices = load_site("home").devices
    target = devices["hall_thermostat"].actions["set"].input["target_c"]
    assert (target.minimum, target.maximum) == (10, 28)
    assert devices["front_door"].actions["unlock"].risk == "confirm"
    assert devices["garage_door"].actions["open"].risk == "confirm"
    assert devices["garden_sprinkler"].actions["water"].requires[0].below == 60
    assert devices["well_pump"].actions["run"].requires[0].above == 20


def test_on_is_a_word(tmp_path: Path) -> None:
    assert set(load_site(write_site(tmp_path, SMALL)).devices["lamp"].properties) == {"on"}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("model: light", "model: ligth", 6, "did you mean light?"),
        ("model: light", "model: lamp", 6, "did you mean light?"),
        ("model: light", "model: bulb", 6, "did you mean light?"),
        ("model: light", "model: Socket", 6, "did you mean switch?"),
        ("model: light", "model: plug", 6, "did you mean switch?"),
        ("model: light", "model: outlet", 6, "did you mean switch?"),
        ("model: light", "model: curtain", 6, "did you mean blinds?"),
        ("model: light", "model: shutter", 6, "did you mean blinds?"),
        ("model: light", "model: radiator", 6, "did you mean thermostat?"),
        ("model: light", "model: [light, heater]", 6, "did you mean thermostat?"),
        ("model: light", "kind: light\n    properties: {status: {type: boolean}}", 5, "cannot be called status"),
        ("title: a test bench", "titel: a test bench", 3, "did you mean title"),
        ("initial: {level_pct: 50}", "initial: {level: 50}", 7, "did you mean level_pct?"),
        ("initial: {level_pct: 50}", "initial: {level_pct: 150}", 7, "150 is outside 0 to 100"),
        ("tank.level_pct, above", "tank.level, above", None, "did you mean level_pct?"),
        ("above: 20", "over: 20", 13, "did you mean above"),
        ("schema: site/v1", "schema: site/v9", 1, "site/v1"),
        ("devices:", "devices: [", None, "not YAML"),
    ],
)
def test_wrong_site_is_one_line_with_file_line_and_hint(
    tmp_path: Path, old: str, new: str, line: int | None, words: str
) -> None:
    path = write_site(tmp_path, SMALL.replace(old, new))
    with pytest.raises(UsageError) as caught:
        load_site(path)
    text = f"{caught.value} {caught.value.hint}"
    assert str(path) in text and words in text and "\n" not in text
    if line is not None:
        assert f"{path}:{line}:" in text


def test_a_device_may_be_of_several_models(tmp_path: Path) -> None:
    site = load_site(write_site(tmp_path, SMALL.replace("model: light", "model: [dimmable_light, color_temp, power]")))
    lamp = site.devices["lamp"]
    assert lamp.kind == "light" and list(lamp.properties) == ["on", "brightness", "color_temp", "power"]
    assert list(lamp.actions) == ["on", "off", "brightness", "color_temp"]
    assert lamp.actions["color_temp"].effect({"color_temp": 300}) == {"on": True, "color_temp": 300}


def test_every_word_for_a_model_leads_to_one() -> None:
    words = [word for words in MODEL_WORDS.values() for word in words.split()]
    assert MODEL_WORDS.keys() <= load_models().keys() and len(words) == len(set(words))
    assert not set(words) & load_models().keys()


def test_an_action_with_a_title_is_asked_for_by_it(tmp_path: Path) -> None:
    action = "{title: boost time, input: {minutes: {type: integer, minimum: 1, maximum: 9}}, writes: {boost: $minutes}}"
    entry = f"properties: {{boost: {{type: integer, minimum: 0, maximum: 9}}}}\n    actions: {{set_boost: {action}}}"
    site = load_site(write_site(tmp_path, SMALL.replace("model: light", f"model: light\n    {entry}")))
    said = site.devices["lamp"].actions["set_boost"].requests
    assert "set the boost time of {device} to {minutes}" in said and len(said) >= 30
    number = DataSchema(type="number", minimum=0, maximum=9)
    two = SpokenAction(title="fade", input={"to": number, "seconds": number}, at={"url": "x"}, report="{to} {seconds}")
    assert two.requests[0] == "do fade on {device} with to {to} and seconds {seconds}"
    assert SpokenAction(writes={"on": True}).requests == ()
    assert SpokenAction(title="x", writes={"on": True}, say=["go {device}"]).requests == ("go {device}",)  # type: ignore[arg-type]


def test_unknown_site_is_named() -> None:
    with pytest.raises(UsageError, match="no site is called 'hom'") as caught:
        load_site("hom")
    assert "home" in caught.value.hint


@pytest.mark.parametrize("alias", ["Lamp", "DESK lamp", "desk lamp"])
def test_a_name_that_two_devices_share_but_for_capitals_is_found(
    tmp_path: Path, alias: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = SMALL.replace("  lamp:\n", "  lamp:\n    aliases: [desk lamp, Lamp]\n")
    assert main(["devices", "check", str(write_site(tmp_path, own))]) == 0  # in one device they do no harm
    path = write_site(tmp_path, own.replace("  tank:\n", f"  tank:\n    aliases: [{alias}]\n"))
    assert shared_names(load_site(path)) == {alias.lower(): ["lamp", "tank"]}
    capsys.readouterr()
    assert main(["devices", "check", str(path)]) == 2
    assert f"{path}: lamp and tank are both called '{alias.lower()}'" in capsys.readouterr().err


def test_no_shipped_site_has_a_shared_name() -> None:
    assert [name for name in shipped_names(SITES_FOLDER) if shared_names(load_site(name))] == []


@pytest.mark.parametrize(
    ("typed", "found"), [("lamp", "lamp"), ("LAMP", "lamp"), ("Eco", "Eco"), ("ECO", None), ("lamps", None), ("", None)]
)
def test_a_name_is_found_in_any_capitals_where_only_one_has_its_letters(typed: str, found: str | None) -> None:
    assert find_name(typed, ["lamp", "Eco", "eco"]) == found
