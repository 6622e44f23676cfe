"""Sites from plain MQTT topics that nobody describes: what they are is guessed from the values that were seen.

Topics with the same parent are a device; each value of a JSON object is a property. Levels that only say a direction
(`stat`, `tele`, `state`, `status`) play no part in names. What is guessed stands as a comment before the property.
Nothing can be set unless a topic to set it was seen (`/set`, `cmnd`, `command`), and then it needs a yes.
Every topic, and every value of a JSON object, is on the account.

Does not guard against: a topic that shows other things at other times, nor a setting whose limits were not seen.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from devices.drivers.json_values import key_of, text_of
from devices.exchange.imports.imported import (
    FREE_TEXT,
    NO_VALUE,
    WIDEST,
    Feature,
    Imported,
    boolean_schema,
    part_name,
    plain_name,
    plain_number,
    setters,
)
from devices.exchange.imports.parts import NUMBERS, Part, leaves, number_schema
from devices.exchange.mqtt_topics import Topics
from devices.site.describe import plain_text

SHOWN_IN = {"stat", "state", "status", "tele"}
SET_IN = {"set", "cmnd", "command"}
PAIRS = (  # what stands for false and true
    ("off", "on"), ("false", "true"), ("closed", "open"), ("no", "yes"), ("offline", "online"),
    ("unlocked", "locked"), ("clear", "detected"), ("dry", "wet"), ("inactive", "active"), ("disabled", "enabled"),
)  # fmt: skip
WORD = re.compile(r"[A-Za-z][\w-]{0,39}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?|\d\d:\d\d(:\d\d)?")
NO_TEXT = "its value is no text"
NOBODY_SHOWS = "no topic shows what it sets"
OTHER_WORDS = "what it takes is not what is shown"
NO_LIMITS = "its limits are not known: one value was seen"
SEEN = 4  # values that a comment names


@dataclass
class _Spot:
    """A value that is shown or set: where, what was seen there, and its line on the account."""

    levels: tuple[str, ...]
    topic: str
    path: tuple[str, ...]
    values: list[Any]
    feature: Feature

    @property
    def device(self) -> tuple[str, ...]:
        """The levels that name its device: all of a JSON object, and those above a plain value."""
        return self.levels if self.path else self.levels[:-1] or self.levels

    @property
    def name(self) -> str:
        """What it is called in its device."""
        return " ".join(self.path) if self.path else self.levels[-1]


def import_by_example(made: Imported, topics: Topics, driver: str) -> None:
    """Take what topics show; `made.guesses` says what was guessed.

    Args:
        made: the site in the making.
        topics: with the values that were seen.
        driver: of the broker, with the profile plain.
    """
    shown, settings = list[_Spot](), list[_Spot]()
    for topic, payloads in topics.items():
        parts = [level for level in topic.split("/") if level]
        is_setting = any(level.lower() in SET_IN for level in parts)
        levels = tuple(level for level in parts if level.lower() not in SHOWN_IN | SET_IN) or tuple(parts)
        for path, values in _values_of(payloads).items():
            feature = made.offer("", " ".join([topic, *path]))
            (settings if is_setting else shown).append(_Spot(levels, topic, path, values, feature))
    devices: dict[tuple[str, ...], list[_Spot]] = {}
    for spot in shown:
        devices.setdefault(spot.device, []).append(spot)
    for levels, inside in devices.items():
        _take_device(made, driver, levels, inside, settings)
    for setting in settings:
        if setting.feature.reason and not any(_is_for(setting, spot) for spot in shown):
            setting.feature.leave(NOBODY_SHOWS)


def _values_of(payloads: Sequence[str]) -> dict[tuple[str, ...], list[Any]]:
    """Return the different values of a topic, by their place in its JSON; the whole is at ()."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for payload in payloads:
        try:
            body = json.loads(payload)
        except (ValueError, RecursionError):
            body = payload
        for path, value in leaves(body) if isinstance(body, dict) and body else [((), body)]:
            known = found.setdefault(path, [])
            if not any(type(value) is type(other) and value == other for other in known):
                known.append(value)
    return found


def _take_device(
    made: Imported, driver: str, levels: tuple[str, ...], spots: Sequence[_Spot], settings: Sequence[_Spot]
) -> None:
    part, guesses = Part("sensor"), dict[tuple[str, str], str]()
    for spot in spots:
        setting = next((one for one in settings if one.feature.reason and _is_for(one, spot)), None)
        guess = _guess(spot, setting)
        if isinstance(guess, str):
            spot.feature.leave(guess)
            if setting:
                setting.feature.leave(f"what it sets is left out: {guess}")
            continue
        place = {"topic": spot.topic, **({"key": key_of(*spot.path)} if spot.path else {}), "is_asked": False}
        if guess.words:
            place["words"] = guess.words
        if setting and guess.is_set:
            place["set_topic"] = setting.topic
        known = set(part.at)
        part.own(part_name(guess.name), guess.schema, place, spot.feature, " ".join(levels[-1:]))
        (name,) = part.at.keys() - known
        guesses["properties", name] = f"guess: {guess.why}, as {_seen(spot.values)} was seen"
        if setting and guess.is_set:
            setting.feature.take()
            for action, entry in setters(name, name.replace("_", " "), part.properties[name]).items():
                part.actions[action] = entry
                guesses["actions", action] = (
                    f"guess: {plain_text(setting.topic)} sets it, as {_seen(setting.values)} was"
                )
        elif setting:
            setting.feature.leave(guess.why_not_set)
    if part.at:
        name = made.add(" ".join(levels), "sensor", part.site_entry(driver), features=part.features)
        made.guesses |= {(name, *place): text for place, text in guesses.items()}


def _is_for(setting: _Spot, spot: _Spot) -> bool:
    """Return whether a topic sets what another shows: the same levels, and in JSON the same place."""
    return setting.levels == spot.levels and setting.path == spot.path


def _seen(values: Iterable[Any]) -> str:
    listed = [plain_text(text_of(value))[:20] for value in values]
    return ", ".join(listed[:SEEN]) + (f" and {len(listed) - SEEN} more" if len(listed) > SEEN else "")


@dataclass
class _Guess:
    """What a value is taken for.

    Attributes:
        name: of the property.
        schema: of it.
        why: in words.
        words: what the device says for false and true.
        is_set: whether it can be set as was seen.
        why_not_set: if not.
    """

    name: str
    schema: dict[str, Any]
    why: str
    words: list[str] | None = None
    is_set: bool = True
    why_not_set: str = ""


def _guess(spot: _Spot, setting: _Spot | None) -> _Guess | str:
    """Return what a value is, or why it has no place."""
    shown = [value for value in spot.values if value not in (None, "")]
    told = [value for value in setting.values if str(value).lower() != "toggle"] if setting else []
    if not shown:
        return NO_VALUE
    if any(isinstance(value, list | dict) for value in shown):
        return "a list" if isinstance(shown[0], list) else NO_VALUE
    if any("\ufffd" in str(value) for value in shown):
        return NO_TEXT
    if pair := _pair_of([*shown, *told]) or _pair_of(shown):
        return _switch(spot, pair, told)
    if all(_number(value) is not None for value in shown):
        return _measure(spot, [float(value) for value in shown], told)
    texts = [str(value) for value in shown]
    if all(MOMENT.fullmatch(text) for text in texts):
        return "a time"
    if len(texts) > 1 and all(WORD.fullmatch(text) for text in texts):
        schema = {"type": "string", "enum": texts}
        is_set = bool(told) and set(map(str, told)) <= set(texts)
        return _Guess(plain_name(spot.name), schema, "one of these words", None, is_set, OTHER_WORDS)
    return FREE_TEXT


def _pair_of(values: Sequence[Any]) -> tuple[str, str] | None:
    texts = {text_of(value).lower() for value in values if isinstance(value, str | bool)}
    has_all = len(values) > 0 and all(isinstance(value, str | bool) for value in values)
    return next((pair for pair in PAIRS if has_all and texts <= set(pair)), None)


def _switch(spot: _Spot, pair: tuple[str, str], told: Sequence[Any]) -> _Guess:
    """Return a boolean; the words are written as they were where it is set, and else where it is shown."""
    is_set = bool(told) and _pair_of(told) == pair
    example = next(value for value in (told if is_set else spot.values) if value not in (None, ""))
    words = None
    if isinstance(example, str):
        style = next((one for one in (str.upper, str.title) if one(example) == example), str.lower)
        words = [style(word) for word in pair]
    schema = boolean_schema(pair[1], pair[0])
    return _Guess(plain_name(spot.name), schema, f"{pair[0]} or {pair[1]}", words, is_set, OTHER_WORDS)


def _number(value: Any) -> float | None:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _measure(spot: _Spot, shown: Sequence[float], told: Sequence[Any]) -> _Guess:
    """Return a number; one that is set keeps within what was seen, since nobody said how far it may go."""
    label = re.sub(r"[^a-z0-9.]", "", (spot.path or spot.levels)[-1].lower())
    is_known = label in NUMBERS
    name, schema = number_schema(label)
    numbers = [number for value in told if (number := _number(value)) is not None]
    if told and len(numbers) == len(told) and len({*shown, *numbers}) > 1:
        low, high = min(*shown, *numbers), max(*shown, *numbers)
        limits = {"minimum": plain_number(low), "maximum": plain_number(high)}
        return _Guess(plain_name(spot.name), {"type": "number", **limits}, "a number between those that were seen")
    if not all(schema["minimum"] <= value <= schema["maximum"] for value in shown):
        widest = 10.0 ** math.ceil(math.log10(max(WIDEST, *map(abs, shown)) + 1))
        schema, is_known = {"type": "number", "minimum": plain_number(-widest), "maximum": plain_number(widest)}, False
    what = f"a number in {schema['unit']} by its name" if is_known and "unit" in schema else "a number"
    own = name if is_known else plain_name(spot.name)
    return _Guess(own, schema, what, None, False, NO_LIMITS if len(numbers) == len(told) else OTHER_WORDS)
