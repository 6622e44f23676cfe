"""Random sites for pretraining: other places, devices, tool names and ranges in every conversation."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Annotated, Any

from pydantic import Field

from devices.site.device import Device
from devices.site.phrasings import load_phrasings
from devices.site.scenes import SceneStates
from devices.site.schema import DataSchema, Value
from devices.site.site import Area, Floor, Group, Site, join_models, load_models
from devices.yaml_file import Strict

RENAMED_SHARE = 0.15
INVENTED_SHARE = 0.15  # of places; of nouns half as many
OTHER_SHARE, SENSOR_SHARE = 0.12, 0.15  # of devices
AREAS_SHARE = 0.5  # of sites have areas; of those fewer have floors, and groups
FLOORS_SHARE, GROUPS_SHARE = 0.4, 0.4
SCENES_SHARE, SCENES, SCENE_DEVICES = 0.4, (1, 3), (2, 5)
LEVELS_SHARE, STEP_SHARE = 0.3, 0.3  # of a site's kinds of arguments
AREAS, PLACED_SHARE, NAMED_BY_AREA_SHARE = (2, 6), 0.9, 0.6  # of an area's devices
ALONE_SHARE = 0.1  # of devices are called by their noun alone; of the other models' half
RECORDS = 6
NEAR_SHARE, NEAR_NAMES = 0.4, (1, 3)  # of sites have names that are hard to tell apart
USUAL: dict[str, float] = {  # what homes have more of
    "light": 4, "dimmable_light": 5, "dimmable_light + color": 2, "dimmable_light + color_temp": 2, "switch": 3,
    "thermostat": 5, "thermostat + mode": 2, "blinds": 3, "cover": 2, "lock": 6, "door": 5, "fan": 3, "valve": 2,
    "pump": 2, "motion_sensor": 2, "soil_sensor": 2, "level_sensor": 2,
}  # fmt: skip
STARTS = "b br c ch d dr f fl g gr h j k kl l m n p pl qu r s sh st t tr v w z".split()
VOWELS = "a ai e ea ee i o oa oo ou u".split()
ENDS = ["", "", "", *"ck d l ll m n nd ng nt r rd rt s ss st t x".split()]


class FromOneState(Strict):
    """Conversations that start in one state, so that training evaluates it once. Ranges are from and to.

    Attributes:
        rows: how many; of them `long_rows` with several exchanges.
        cut_share: of those with one exchange, how many end with their first call: what follows says little new.
        exchanges: how many a long conversation has.
    """

    rows: int = Field(default=16, ge=1)
    long_rows: int = Field(default=2, ge=0)
    cut_share: float = Field(default=0.0, ge=0, le=1)
    exchanges: tuple[int, int] = Field(default=(2, 3), strict=False)


class Sites(FromOneState):
    """Random sites to make conversations of, each in one state.

    Attributes:
        devices: how many each has, from and to.
        weights: how often a model of devices is drawn against the others; 1 if it is left out.
        other_names: how many devices have an alias that shares no word with what they are ("heating"), or is their
            place alone ("the garage").
    """

    devices: tuple[int, int] = Field(default=(3, 10), strict=False)
    other_names: float = Field(default=0.0, ge=0, le=1)
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=lambda: dict(USUAL))


def random_site(
    rng: Random,
    devices: tuple[int, int] = (4, 14),
    weights: Mapping[str, float] | None = None,
    other_names: float = 0.0,
) -> Site:
    """Return a site with a number of devices in the range given; some of them have unusual tool names.

    `weights` and `other_names` are as in `Sites`.
    """
    models, words = load_models(), load_phrasings()
    ranges = {name: rng.choice(found.ranges) for name, found in words.arguments.items() if found.ranges}
    bits = _random_bits(rng)
    kind_names = {kind: rng.choice(found.names) for kind, found in words.kinds.items() if found.names}
    action_names = {action: rng.choice(names) for action, names in words.actions.items()}
    is_renamed = rng.random() < RENAMED_SHARE
    areas = _random_areas(rng) if rng.random() < AREAS_SHARE else {}
    made: dict[str, Device] = {}
    models_of: dict[str, str] = {}
    wanted, usual_nouns = rng.randint(*devices), words.nouns | words.more_nouns
    while len(made) < wanted:
        is_other = rng.random() < OTHER_SHARE
        is_sensor = not is_other and rng.random() < SENSOR_SHARE
        nouns_of = words.other_nouns if is_other else words.sensor_nouns if is_sensor else usual_nouns
        if weights:
            model_name = rng.choices(list(nouns_of), [weights.get(model, 1.0) for model in nouns_of])[0]
        else:
            model_name = rng.choice(list(nouns_of))
        place, noun = random_name(rng, model_name)
        area = rng.choice(list(areas)) if areas and not is_other and rng.random() < PLACED_SHARE else ""
        if area:
            place = area if rng.random() < NAMED_BY_AREA_SHARE else rng.choice(words.positions)
        is_alone = rng.random() < (0.5 if is_other else ALONE_SHARE)
        name = noun if is_alone else f"{place}_{noun}"
        if name in made or place == noun:
            continue
        entry = copy.deepcopy(join_models(model_name.split(" + "), models))
        _set_ranges(entry, ranges)
        _set_bits(entry, bits)
        if is_renamed:
            entry["kind"] = kind_names.get(entry["kind"], entry["kind"])
            entry["actions"] = {action_names.get(old, old): action for old, action in entry.get("actions", {}).items()}
        _set_risk(entry, rng)
        aside = f"{place} {noun}" if is_alone or place in words.positions else f"{noun} in the {place}"
        aliases = tuple(dict.fromkeys((aside, *((f"{noun} in the {areas[area].title}",) if area else ()))))
        title = noun if is_alone else f"{place} {noun}".replace("_", " ")
        device = Device(name=name, title=title, aliases=aliases, area=area, **entry)
        made[name] = device.model_copy(update={"records": _random_records(device, rng)})
        models_of[name] = model_name
    nouns = Counter(name.split("_")[-1] for name in made)
    for name, device in made.items():
        noun = name.split("_")[-1]
        if nouns[noun] == 1 and noun != name:  # the only one of its name is also called by the noun alone
            made[name] = device.model_copy(update={"aliases": (*device.aliases, noun)})
    if other_names:
        _add_other_names(made, models_of, areas, rng, other_names)
    floors = {floor: Floor(title=floor.replace("_", " "), aliases=words.floors[floor]) for floor in _floors_of(areas)}
    groups = _random_groups(made, rng) if areas and rng.random() < GROUPS_SHARE else {}
    site = Site(name="random", title=rng.choice(words.titles), floors=floors, areas=areas, groups=groups, devices=made)
    site = _with_interlocks(site, rng)
    return site.model_copy(update={"scenes": _random_scenes(site, rng)}) if rng.random() < SCENES_SHARE else site


def with_near_names(site: Site, rng: Random, *, strange: bool = True) -> Site:
    """Return a site of which some devices have a twin with a number, or a title that is a verb or of another script.

    `strange` titles stand in no state, so that only a model that is tuned on the site can know them.
    """
    if rng.random() >= NEAR_SHARE:
        return site
    devices = dict(site.devices)
    for name in rng.sample(list(devices), min(rng.randint(*NEAR_NAMES), len(devices))):
        device, title = devices[name], rng.choice(load_phrasings().strange_titles)
        if rng.random() < 0.6:
            twin = {"name": f"{name}_2", "title": f"{device.title} 2", "aliases": ()}
            devices[f"{name}_2"] = device.model_copy(update=twin)
        elif strange and title not in {other.title for other in devices.values()}:
            devices[name] = device.model_copy(update={"title": title})
    return site.model_copy(update={"devices": devices})


def _random_areas(rng: Random) -> dict[str, Area]:
    """Return areas, of some sites on floors."""
    words = load_phrasings()
    names = [*rng.sample(words.places, rng.randint(*AREAS)), *([_invented_word(rng)] if rng.random() < 0.3 else [])]
    floors = rng.sample(list(words.floors), 2) if rng.random() < FLOORS_SHARE else []
    return {
        name: Area(title=name, floor=rng.choice([*floors, ""]) if floors else "")
        for name in names
        if name not in words.floors
    }


def _floors_of(areas: dict[str, Area]) -> list[str]:
    return sorted({area.floor for area in areas.values() if area.floor})


def _random_groups(devices: dict[str, Device], rng: Random) -> dict[str, Group]:
    """Return one or two groups of devices that can do the same."""
    by_action: dict[str, list[str]] = {}
    for device in devices.values():
        for action in device.actions:
            by_action.setdefault(f"{device.kind} {action}", []).append(device.name)
    shared = [names for names in by_action.values() if len(names) > 1]
    groups: dict[str, Group] = {}
    for title in rng.sample(load_phrasings().groups, rng.randint(1, 2)) if shared else ():
        names = rng.choice(shared)
        members = rng.sample(names, rng.randint(2, len(names)))
        groups[title.replace(" ", "_")] = Group(title=title, devices=tuple(members))
    return groups


def random_name(rng: Random, model: str) -> tuple[str, str]:
    """Return a place and a noun for a device of a model; some are words that mean nothing."""
    words = load_phrasings()
    place = _invented_word(rng) if rng.random() < INVENTED_SHARE else rng.choice(words.places)
    nouns = words.nouns | words.more_nouns | words.sensor_nouns | words.other_nouns
    noun = _invented_word(rng) if rng.random() < INVENTED_SHARE / 2 else rng.choice(nouns[model])
    return place, noun


def _add_other_names(
    made: dict[str, Device], models_of: Mapping[str, str], areas: Mapping[str, Area], rng: Random, share: float
) -> None:
    """Give a share of the devices an alias of other words, which no other device and no area has."""
    words = load_phrasings()
    for name, device in made.items():
        if (others := words.other_words.get(models_of[name].split(" + ")[-1])) is None:
            continue
        taken = [{word for one in made[other].names for word in one.split()} for other in made if other != name]
        taken += [{*area.title.split()} for area in areas.values()]
        place, _, noun = name.partition("_")
        called = [f"{place} {one}" for one in others] + [f"{one} in the {place}" for one in others] if noun else []
        called += [*others, *others, *([place] if noun and place in words.places else [])]
        fits = [one for one in called if one not in device.names and not any({*one.split()} <= had for had in taken)]
        if rng.random() < share and fits:
            made[name] = device.model_copy(update={"aliases": (*device.aliases, rng.choice(fits))})


def _random_records(device: Device, rng: Random) -> tuple[dict[str, Value], ...]:
    """Return what the device knows, if it has actions with output: what finds a record, and what is in it."""
    records: list[dict[str, Value]] = []
    for _ in range(RECORDS):
        record: dict[str, Value] = {}
        for action in device.actions.values():
            if action.output:
                keys = [name for name in action.input if f"${name}" not in action.record.values()]
                record |= {name: _random_value(action.input[name], rng) for name in keys}
                record |= dict.fromkeys(action.words, "")
                record |= {name: _random_value(schema, rng) for name, schema in action.output.items()}
        if record:
            records.append(record)
    return tuple(records)


def _random_value(schema: DataSchema, rng: Random) -> Value:
    if schema.type == "boolean" or schema.enum:
        return rng.choice(schema.enum or (False, True))
    assert schema.minimum is not None and schema.maximum is not None
    return rng.randrange(int(schema.minimum), int(schema.maximum) + 1, max(1, int(schema.step or 1)))


def _invented_word(rng: Random) -> str:
    """Return a word of one to three syllables, so that names must be copied and cannot only be recognized."""
    return "".join(rng.choice(STARTS) + rng.choice(VOWELS) + rng.choice(ENDS) for _ in range(rng.choice((1, 2, 2, 3))))


def _set_ranges(entry: dict[str, Any], ranges: dict[str, tuple[int, int]]) -> None:
    schemas = [entry["properties"], *(action.get("input", {}) for action in entry.get("actions", {}).values())]
    for schema in schemas:
        for name, (minimum, maximum) in ranges.items():
            if name in schema:
                schema[name] = dict(schema[name]) | {"minimum": minimum, "maximum": maximum}
    for action in entry.get("actions", {}).values():
        # "fully open" and "fully bright" are the ends of the range
        for name, value in action.get("writes", {}).items():
            if name in ranges and not isinstance(value, str):
                action["writes"] = dict(action["writes"]) | {name: ranges[name][0 if value == 0 else 1]}


def _random_bits(rng: Random) -> dict[str, dict[str, Any]]:
    """Return the levels or the step that some arguments have on a site, levels as shares of the range."""
    bits: dict[str, dict[str, Any]] = {}
    for name, found in load_phrasings().arguments.items():
        chance = rng.random()
        if found.levels and chance < LEVELS_SHARE:
            bits[name] = {"levels": rng.choice(found.levels)}
        elif found.steps and chance > 1 - STEP_SHARE:
            bits[name] = {"step": rng.choice(found.steps)}
    return bits


def _set_bits(entry: dict[str, Any], bits: dict[str, dict[str, Any]]) -> None:
    """Give properties and arguments their levels, and arguments their steps."""
    inputs = [action["input"] for action in entry.get("actions", {}).values() if "input" in action]
    for name, bit in bits.items():
        for schemas in [*inputs, *([entry["properties"]] if "levels" in bit else [])]:
            if name not in schemas:
                continue
            low, high = schemas[name]["minimum"], schemas[name]["maximum"]
            if "levels" in bit:
                told = {"levels": {word: round(low + share * (high - low)) for word, share in bit["levels"].items()}}
            else:
                told = bit if low % bit["step"] == 0 else {}
            schemas[name] = dict(schemas[name]) | told


def _random_scenes(site: Site, rng: Random) -> dict[str, SceneStates]:
    """Return scenes of what some actions of some devices make so."""
    usable = [
        (device, action)
        for device in site.devices.values()
        for action in device.actions.values()
        if not (action.is_call or action.ends or action.increasing)
    ]
    scenes: dict[str, SceneStates] = {}
    for title in rng.sample(load_phrasings().scenes, rng.randint(*SCENES)) if len(usable) >= SCENE_DEVICES[0] else ():
        chosen = rng.sample(usable, min(rng.randint(*SCENE_DEVICES), len(usable)))
        states = {
            device.name: action.effect({name: _random_value(schema, rng) for name, schema in action.input.items()})
            for device, action in chosen
        }
        scenes[title.replace(" ", "_")] = SceneStates(title=title, devices=states)
    return scenes


def _set_risk(entry: dict[str, Any], rng: Random) -> None:
    for action in entry.get("actions", {}).values():
        if rng.random() < 0.1 and not action.get("safe"):
            action["risk"] = "confirm"


def _with_interlocks(site: Site, rng: Random) -> Site:
    sensors = [
        (name, key)
        for name, device in site.devices.items()
        for key, schema in device.properties.items()
        if not device.actions and schema.type == "number"
    ]
    if not sensors:
        return site
    devices = dict(site.devices)
    for name, device in site.devices.items():
        actions = dict(device.actions)
        for action_name, action in device.actions.items():
            if action.risk == "guarded" and rng.random() < 0.7:
                sensor, key = rng.choice(sensors)
                bound = {rng.choice(["above", "below"]): float(rng.randrange(5, 80, 5))}
                plain = action.model_dump() | {"requires": [{"property": f"{sensor}.{key}"} | bound]}
                actions[action_name] = type(action)(**plain)
        devices[name] = device.model_copy(update={"actions": actions})
    return site.model_copy(update={"devices": devices})
