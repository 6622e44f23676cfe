"""Words in answers: what they stand for does not hang on capitals, where two words do not differ by them alone."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from devices.drivers.colors import HUES, Space, color_of
from devices.drivers.json_values import JsonValue, Moving, key_of, put
from devices.site.schema import DataSchema, Value

BOOLEAN, MODE = DataSchema(type="boolean"), DataSchema(type="string", enum=("eco", "comfort"))


@pytest.mark.parametrize(("raw", "value"), [("ON", True), ("on", True), ("Off", False)])
def test_words_for_true_and_false(raw: str, value: bool) -> None:
    assert JsonValue(words=("OFF", "ON")).to_value(raw, BOOLEAN) is value


def test_words_that_differ_by_capitals_alone_are_kept_apart() -> None:
    address = JsonValue(words=("A", "a"))
    assert (address.to_value("A", BOOLEAN), address.to_value("a", BOOLEAN)) == (False, True)


@pytest.mark.parametrize("raw", ["auto", 1, None, ["ON"]])
def test_another_word_is_none(raw: object) -> None:
    with pytest.raises(ValueError, match="no boolean"):
        JsonValue(words=("OFF", "ON")).to_value(raw, BOOLEAN)


@pytest.mark.parametrize(
    ("words", "raw", "value"),
    [
        ((True, False), False, True),  # a contact sensor says false when it is open
        ((True, False), True, False),
        ((0, 1), 1, True),
        ((0, 1), 0.0, False),
        (("0", "1"), 1, True),
        ((0, 1), "1", True),
        ((False, True), "true", True),
        (("closed", "open"), "OPEN", True),
        ((0.5, 1.5), 1.5, True),
        (("dry", 1), "dry", False),
    ],
)
def test_words_may_be_of_any_type(words: tuple[Any, Any], raw: object, value: bool) -> None:
    assert JsonValue(words=words).to_value(raw, BOOLEAN) is value


@pytest.mark.parametrize(("words", "raw"), [((False, True), 1), ((False, True), "on"), (("no", "yes"), 1)])
def test_another_type_is_another_word(words: tuple[Any, Any], raw: object) -> None:
    with pytest.raises(ValueError, match="no boolean"):
        JsonValue(words=words).to_value(raw, BOOLEAN)


@pytest.mark.parametrize("given", [{"words": ("1", 1)}, {"values": {"low": 1, "high": "1"}}])
def test_one_word_has_one_meaning(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="one word cannot stand for two"):
        JsonValue(**given)


def test_a_word_is_sent_as_the_device_has_it() -> None:
    place = JsonValue(values={"eco": 1, "comfort": "COMF"})
    assert [place.to_raw(word) for word in ("eco", "comfort", "party")] == [1, "COMF", "party"]
    assert [place.to_value(raw, MODE) for raw in (1, "comf", "comfort")] == ["eco", "comfort", "comfort"]
    assert JsonValue(words=(True, False)).to_raw(True) is False


@pytest.mark.parametrize("percent", range(101))
def test_a_brightness_is_sent_in_the_steps_of_the_device(percent: int) -> None:
    place, schema = JsonValue(scale=100 / 254, raw_step=1), DataSchema(type="integer", minimum=0, maximum=100)
    raw = place.to_raw(percent)
    assert isinstance(raw, int) and place.to_value(raw, schema) == percent
    assert isinstance(JsonValue(scale=100 / 254).to_raw(50), int)  # 127, and not 126.99999999999999


@pytest.mark.parametrize("space", ["hs", "xy"])
@pytest.mark.parametrize("name", list(HUES))
def test_a_color_comes_back_by_its_name(name: str, space: Space) -> None:
    place, schema = JsonValue(color=space), DataSchema(type="string", enum=tuple(HUES))
    sent = place.to_raw(name)
    assert place.to_value(sent, schema) == name
    rounded = {key: value * 0.99 for key, value in sent.items()} | {"extra": 1}
    assert place.to_value(rounded, schema) == name


@pytest.mark.parametrize(
    ("space", "sent", "shown"),
    [
        ("rgb", [255, 128, 0], {"orange": [200, 90, 5], "white": [9, 9, 9]}),
        ("hsb", "30,100", {"orange": "33,90,1", "red": "360,100,0", "white": "0,0,50"}),
        ("homie_rgb", "255,128,0", {"blue": "0,0,255"}),
        ("homie_hsv", "30,100,100", {"cyan": "181,99,20"}),
        ("homie5_rgb", "rgb,255,128,0", {"blue": "rgb,0,0,255", "cyan": "hsv,181,99.5,20", "red": "xyz,0.64,0.33"}),
        ("homie5_hsv", "hsv,30,100,100", {"blue": "rgb,0,0,25"}),
        ("homie5_xyz", "xyz,0.5436,0.4066", {"green": "xyz,0.3,0.6"}),
    ],
)
def test_the_colors_of_others(space: Space, sent: object, shown: dict[str, object]) -> None:
    place, schema = JsonValue(color=space), DataSchema(type="string", enum=tuple(HUES))
    assert place.to_raw("orange") == sent
    assert {name: place.to_value(raw, schema) for name, raw in shown.items()} == {name: name for name in shown}
    assert all(place.to_value(place.to_raw(name), schema) == name for name in HUES)


def test_the_corners_of_the_standard() -> None:
    """Red, green, blue and white of sRGB have these places in CIE 1931. Source: IEC 61966-2-1."""
    for name, x, y in (("red", 0.64, 0.33), ("green", 0.3, 0.6), ("blue", 0.15, 0.06), ("white", 0.3127, 0.329)):
        assert color_of(name, "xy") == pytest.approx({"x": x, "y": y}, abs=2e-4)


@pytest.mark.parametrize(
    ("space", "raw"),
    [
        ("hs", None), ("hs", "red"), ("hs", {"hue": 1}), ("hs", {"hue": "a", "saturation": 3}),
        ("rgb", [1, 2]), ("rgb", [0, 0, 0]), ("rgb", 7), ("hsb", "nan,3,4"), ("hsb", "1"), ("hsb", ""),
        ("homie5_rgb", "255,0,0"), ("homie5_rgb", "cmy,1,2,3"), ("homie_hsv", "hsv,1,2,3"),
    ],
)  # fmt: skip
def test_no_color_is_none(space: Space, raw: object) -> None:
    with pytest.raises(ValueError, match="no color"):
        JsonValue(color=space).to_value(raw, DataSchema(type="string", enum=tuple(HUES)))


@pytest.mark.parametrize(("raw", "value"), [("eco", "eco"), ("ECO", "eco"), ("Party", "Party")])
def test_words_of_a_list(raw: str, value: Value) -> None:
    assert JsonValue().to_value(raw, MODE) == value


ENERGY = {"ENERGY": {"Power": [41, 7], "0": 5}, "PMS5003": {"PM2.5": 4.5}}
NUMBER = DataSchema(type="number", minimum=0, maximum=100)


@pytest.mark.parametrize(
    ("key", "value"),
    [("ENERGY.Power.0", 41), ("ENERGY.Power.1", 7), ("ENERGY.0", 5), (key_of("PMS5003", "PM2.5"), 4.5)],
)
def test_keys_lead_into_lists_and_past_dots(key: str, value: float) -> None:
    assert JsonValue(key=key).to_value(ENERGY, NUMBER) == value


@pytest.mark.parametrize(
    "key", ["ENERGY.Power.2", "ENERGY.Power.-1", "ENERGY.Power.x", "ENERGY.Power.0.1", "PMS5003.PM2.5"]
)
def test_what_is_not_there_is_said(key: str) -> None:
    assert not JsonValue(key=key).is_in(ENERGY)
    with pytest.raises(ValueError, match="the answer has no"):
        JsonValue(key=key).to_value(ENERGY, NUMBER)


def test_what_is_put_is_found() -> None:
    shown: dict[str, object] = {}
    for key, value in (("a.Power.1", 7), ("a.Power.0", 41), (key_of("b", "PM2.5"), 4.5), ("c.0.d", 1)):
        put(shown, key, value)
        assert JsonValue(key=key).find(shown) == value
    assert shown == {"a": {"Power": [41, 7]}, "b": {"PM2.5": 4.5}, "c": [{"d": 1}]}


@pytest.mark.parametrize(
    ("answer", "left_s"),
    [
        ({"state": "opening", "move_timeout": 12}, 12),
        ({"state": "closing"}, 60),
        ({"state": "closing", "move_timeout": 0}, 60),
        ({"state": "open"}, 0),
        ({}, None),
    ],
)
def test_how_long_a_device_may_still_move(answer: dict[str, object], left_s: float | None) -> None:
    moving = Moving(key="state", values=("opening", "closing"), time_key="move_timeout")
    assert JsonValue(key="pos", moving=moving).moving_s(answer) == left_s
    assert JsonValue(key="pos").moving_s(answer) is None


@pytest.mark.parametrize(("raw", "value"), [("21.3", 21.3), ("-5", -5), (7, 7)])
def test_numbers_may_be_text(raw: object, value: float) -> None:
    assert JsonValue().to_value(raw, NUMBER) == value


@pytest.mark.parametrize("raw", ["unavailable", "", "nan", "inf", True, None, [1]])
def test_what_is_no_number(raw: object) -> None:
    with pytest.raises(ValueError, match="no number"):
        JsonValue().to_value(raw, NUMBER)


def test_null_may_stand_for_a_value() -> None:
    place = JsonValue(key="brightness", when_null=0)
    assert (place.to_value({"brightness": None}, NUMBER), place.to_value({"brightness": 3}, NUMBER)) == (0, 3)
    with pytest.raises(ValueError, match="the answer has no brightness"):
        place.to_value({}, NUMBER)


def test_an_answer_may_say_the_same_by_several_words() -> None:
    on = DataSchema(type="boolean")
    player = JsonValue(key="state", words=("off", "on"), alike={"standby": "off", "playing": "on"})
    said = {"off": False, "Standby": False, "on": True, "playing": True}
    assert {word: player.to_value({"state": word}, on) for word in said} == said
    with pytest.raises(ValueError, match="'unavailable', no boolean"):
        player.to_value({"state": "unavailable"}, on)
    scene = JsonValue(key="state", words=("unavailable", "available"), alike={"*": "available"})
    assert scene.to_value({"state": "2026-01-05T10:11:45"}, on) is True and scene.to_raw(False) == "unavailable"
    assert scene.to_value({"state": "unavailable"}, on) is False
    mode = JsonValue(key="state", values={"sleep_well": "Sleep well"}, alike={"asleep": "Sleep well"})
    schema = DataSchema(type="string", enum=("none", "sleep_well"))
    assert [mode.to_value({"state": word}, schema) for word in ("none", "asleep")] == ["none", "sleep_well"]
