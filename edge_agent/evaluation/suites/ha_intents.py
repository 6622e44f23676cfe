"""Home Assistant's intents test sentences as own cases on the home that they are about, graded by the world's state.

What people of its community say, with what is meant, in `tests/en` of https://github.com/OHF-Voice/intents (CC BY 4.0).
The files are read where they are and never copied in, and nothing is trained on them. Each sentence starts in a state
in which something is to be done. What a site cannot do, or what cannot be graded, is counted by intent and reason. Of
an answer it is seen whether it has the names and values of the right one, not whether it makes sense of them.

Does not guard against: sentences of one test that say nearly the same, so that intervals are too narrow; and the rules
baseline, whose sentences these tests were written to pass.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import UnavailableError, UsageError
from devices.site.schema import Value
from devices.yaml_file import plain_values, read_yaml
from edge_agent.evaluation.own.own_cases import OwnCall, OwnCase, OwnTurn, Wanted
from edge_agent.evaluation.suites.ha_home import HOME_FILE, MAIN, Entity, Home, read_home

NAME = "ha-intents"
WHERE = "git clone https://github.com/OHF-Voice/intents, then --suite ha-intents=FOLDER"
LANGUAGE_FOLDER = Path("tests") / "en"
NOTHING_FOR_IT = "a site has nothing for it"
NO_DEVICE = "the home has no such device that a site has a model for"
NOT_SAID_WHERE = "it means the room that it is said in"
WHICH_ONE = "it does not say which of several"
OTHER_VALUE = "no device takes that value"
NO_FACT = "the answer is a bare yes, no or zero, or a word too short to look for"
OTHER_HOME = "it is about a home of its own file"
ON_OFF = {"HassTurnOn": True, "HassTurnOff": False}
DOMAINS = {  # of an intent that names none
    "HassLightSet": "light", "HassClimateSetTemperature": "climate", "HassClimateGetTemperature": "climate",
    "HassSetVolume": "media_player", "HassMediaPause": "media_player", "HassMediaUnpause": "media_player",
    "HassMediaNext": "media_player", "HassMediaPrevious": "media_player", "HassVacuumStart": "vacuum",
    "HassVacuumReturnToBase": "vacuum",
}  # fmt: skip
SWITCHED = {  # what a domain's property is when it is turned on, and off
    "light": ("on", True, False), "switch": ("on", True, False), "fan": ("on", True, False),
    "media_player": ("on", True, False), "cover": ("position", 100, 0), "lock": ("locked", True, False),
}  # fmt: skip
BECOMES: dict[str, tuple[str, Value, Value]] = {  # property, value wanted, value before
    "HassMediaPause": ("state", "paused", "playing"), "HassMediaUnpause": ("state", "playing", "paused"),
    "HassVacuumStart": ("state", "cleaning", "docked"), "HassVacuumReturnToBase": ("state", "returning", "cleaning"),
}  # fmt: skip
SETS = {  # intent and slot: the property that it sets
    ("HassLightSet", "brightness"): "brightness", ("HassLightSet", "color"): "color",
    ("HassSetPosition", "position"): "position", ("HassSetVolume", "volume_level"): "volume",
    ("HassClimateSetTemperature", "temperature"): "target_c",
}  # fmt: skip
CALLS = {"HassMediaNext": "next", "HassMediaPrevious": "previous"}
QUESTIONS = {"HassGetState", "HassClimateGetTemperature"}
SHORTEST_TITLE = 4  # letters; a shorter one is also in other words
CONFIRMED = {("lock", "HassTurnOff"), ("scene", "HassTurnOn"), ("script", "HassTurnOn")}
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class HaIntents:
    """The home, its cases, and how many sentences of which intent were left out for which reason."""

    home: Home
    cases: tuple[OwnCase, ...]
    left_out: Mapping[tuple[str, str], int]


class _LeftOut(Exception):
    """Why the sentences of a test cannot be asked."""


def find_ha_intents(folder: str = "") -> Path:
    """Return the folder of the English tests: in a copy of the repository, or itself.

    Raises:
        UnavailableError: it is not there.
    """
    places = [Path(folder) / LANGUAGE_FOLDER, Path(folder)] if folder else []
    found = next((place for place in places if (place / HOME_FILE).is_file()), None)
    if found is None:
        missing = f"no {LANGUAGE_FOLDER / HOME_FILE} in {folder}" if folder else "which copy of its repository?"
        raise UnavailableError(f"Home Assistant's intents: {missing}", hint=WHERE)
    return found


def read_ha_intents(folder: Path) -> HaIntents:
    """Return the cases of all files of a folder of tests.

    Raises:
        UsageError: a file cannot be read or is of another form, or no sentence can be asked; with the file.
    """
    home, cases, left_out = read_home(folder / HOME_FILE), list[OwnCase](), Counter[tuple[str, str]]()
    for path in sorted(folder.rglob("*.yaml")):
        if path.name == HOME_FILE:
            continue
        try:
            for test in plain_values(read_yaml(path, "tests").root)["tests"]:
                if path.parent != folder:  # named for the intent, with entities of its own
                    left_out[path.parent.name, OTHER_HOME] += len(test["sentences"])
                    continue
                for sentence in test["sentences"]:
                    try:
                        cases.append(_case(sentence, test["intent"], test.get("response", ""), home))
                    except _LeftOut as reason:
                        left_out[test["intent"]["name"], str(reason)] += 1
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: not tests of Home Assistant's intents: {error!r}") from error
    if not cases:
        raise UsageError(f"{folder}: no sentence is about what a site can do")
    return HaIntents(home, tuple(cases), dict(sorted(left_out.items())))


def _case(sentence: str, intent: Mapping[str, Any], response: Any, home: Home) -> OwnCase:
    """Return a sentence as a case. Raises _LeftOut if it cannot be asked or graded."""
    name, slots = intent["name"], dict(intent.get("slots") or {})
    if name not in {*ON_OFF, *DOMAINS, "HassSetPosition", "HassGetState"}:
        raise _LeftOut(NOTHING_FOR_IT)
    context = intent.get("context") or {}
    domain = str(slots.get("domain") or context.get("domain") or DOMAINS.get(name, ""))
    meant = _meant(slots, domain, home)
    if "area" in context and slots.get("area", "").lower() not in sentence.lower():
        anywhere = _meant({key: value for key, value in slots.items() if key != "area"}, domain, home)
        if anywhere != meant:
            raise _LeftOut(NOT_SAID_WHERE)
    if not meant or not all(one.device for one in meant):
        raise _LeftOut(NO_DEVICE)
    if name in QUESTIONS:
        has = _facts(name, slots, str(response), meant, home)
        return OwnCase(kind=name, turns=(OwnTurn(ask=sentence, expect={}, answer_has=has),))
    if not {"name", "area", "floor", "domain"} & slots.keys() and len(meant) > 1:
        raise _LeftOut(WHICH_ONE)
    return _action(sentence, name, slots, meant, home)


def _meant(slots: Mapping[str, Any], domain: str, home: Home) -> list[Entity]:
    """Return the entities that an intent is about."""
    wanted = {
        "name": "" if slots.get("name") == "all" else str(slots.get("name", "")),
        "area": str(slots.get("area", "")),
        "floor": str(slots.get("floor", "")),
        "device_class": str(slots.get("device_class", "")),
        "domain": domain,
    }
    if not any(wanted.values()):
        return []
    return [
        one
        for one in home.entities
        if all(getattr(one, key).lower() == value.lower() for key, value in wanted.items() if value)
    ]


def _action(sentence: str, name: str, slots: Mapping[str, Any], meant: Sequence[Entity], home: Home) -> OwnCase:
    """Return a case in which something is to be done, and is not so before."""
    needs = [one.device for one in meant if _is_confirmed(one, name, home)]
    if needs and len(meant) > 1:
        raise _LeftOut("several things would have to be confirmed")
    start, expect, calls = Wanted(), Wanted(), list[OwnCall]()
    for one in meant:
        if one.domain == "media_player":
            start[f"{one.device}.on"] = name != "HassTurnOn"
        if name in CALLS:
            calls.append(OwnCall(action=f"{one.domain}.{CALLS[name]}"))
            continue
        for key, value, before in _changes(one, name, slots):
            schema = home.site.devices[one.device].properties[key]
            if schema.problem_with(value):
                raise _LeftOut(OTHER_VALUE)
            start[f"{one.device}.{key}"], expect[f"{one.device}.{key}"] = before, value
    turn = OwnTurn(ask=sentence, expect={} if needs else expect, needs="".join(needs), calls=tuple(calls))
    return OwnCase(kind=name, start=start, turns=(turn,))


def _is_confirmed(one: Entity, name: str, home: Home) -> bool:
    opens = home.site.devices[one.device].actions.get("open") if name == "HassTurnOn" else None
    return (one.domain, name) in CONFIRMED or bool(opens and opens.risk == "confirm")


def _changes(one: Entity, name: str, slots: Mapping[str, Any]) -> list[tuple[str, Value, Value]]:
    """Return each property of an entity that an intent changes, the value wanted, and one that it has before."""
    if name in BECOMES:
        return [BECOMES[name]]
    if name in ON_OFF:
        if (one.domain, name) in CONFIRMED and one.domain != "lock":
            return []
        if one.domain not in SWITCHED:
            raise _LeftOut(NO_DEVICE)
        key, on, off = SWITCHED[one.domain]
        return [(key, on, off) if ON_OFF[name] else (key, off, on)]
    found = [(key, slots[slot]) for (intent, slot), key in SETS.items() if intent == name and slot in slots]
    if not found:
        raise _LeftOut(NOTHING_FOR_IT)
    return [(key, value, _another(value)) for key, value in found]


def _another(value: Value) -> Value:
    if isinstance(value, str):
        return "white" if value != "white" else "red"
    return 25 if value == 20 else 20


def _facts(
    name: str, slots: Mapping[str, Any], response: str, meant: Sequence[Entity], home: Home
) -> tuple[tuple[str, ...], ...]:
    """Return what an answer must have for Home Assistant's response to be in it."""
    if slots.get("name") or name == "HassClimateGetTemperature":
        if len({one.device for one in meant}) > 1:
            raise _LeftOut(WHICH_ONE)
        return ((*_state_texts(meant[0], home), *(["yes"] if response.startswith("Yes") else [])),)
    if response.isdigit() and int(response) > 0:
        return ((*_number_texts(int(response)), *NUMBER_WORDS[int(response) : int(response) + 1]),)
    titles = {home.site.devices[one.device].title for one in meant}
    named = sorted(title for title in titles if re.search(rf"\b{re.escape(title)}\b", response.lower()))
    if not named or min(map(len, named)) < SHORTEST_TITLE:
        raise _LeftOut(NO_FACT)
    return tuple((title,) for title in named)


def _state_texts(one: Entity, home: Home) -> tuple[str, ...]:
    """Return the state of an entity as the agent may say it, with a blank before it: unlocked is not locked."""
    device = home.site.devices[one.device]
    key = one.reading or MAIN.get(one.domain, "")
    value = device.initial.get(key)
    if value is None:
        raise _LeftOut(NO_DEVICE)
    schema = device.properties[key]
    if isinstance(value, bool):
        return (f" {schema.labels[value]}",)
    if isinstance(value, str) or schema.state_of(value):
        return (f" {schema.state_of(value) or value}",)
    return _number_texts(value)


def _number_texts(value: float) -> tuple[str, ...]:
    """Return a number as it stands in a text, and in no longer number."""
    return tuple(f" {value:g}{end}" for end in (" ", ".", ","))


def left_out_lines(suite: HaIntents) -> list[str]:
    """Return what was left out, as text for the terminal."""
    lines = [f"{sum(suite.left_out.values())} sentences were not asked:"] if suite.left_out else []
    return lines + [f"  {count:>4} of {intent}: {reason}" for (intent, reason), count in suite.left_out.items()]
