"""The corpus in people's words, and what is made of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from devices.simulation.world import World
from devices.site.relative_values import WAYS, allowed, usual_step
from devices.site.schema import DataSchema
from devices.site.site import load_models, load_site
from devices.site.tools import Command
from edge_agent.wire.messages import request_of
from edge_agent.wire.spoken_numbers import number_words
from finetune.data.action_plans import plan_call, plan_confirmed, plan_several
from finetune.data.answer_plans import plan_missing_argument
from finetune.data.generator import Stage, carry_out, generate_rows, random_world
from finetune.data.held_out import content_of
from finetune.data.people.asks import AskedAction, AskedProperty, load_asks
from finetune.data.people.conditions import plan_condition
from finetune.data.people.follow_ups import FOLLOW_UPS
from finetune.data.people.many import plan_many
from finetune.data.people.spoken_before import Before
from finetune.data.people.spoken_values import round_times, spoken_value
from finetune.data.people.state_questions import plan_asked_question
from finetune.data.people.typing import as_typed
from finetune.data.people.wishes import plan_hint, relative_plan, settable
from finetune.data.plan_kinds import PEOPLE_MAKERS
from finetune.data.random_sites import random_site
from finetune.data.scene import Plan, Scene

ASKS, HOME = load_asks(), load_site("home")
OF_KINDS = {"device", "area", "value", "plural", "singular", "amount"}
OF_FORMS = OF_KINDS | {
    "state",
    "verb_it",
    "part",
    "moment",
    "ask",
    "first",
    "second",
    "third",
    "other",
    "again",
    "verb",
    "fact",
    "time",
    "property",
    "axis",
    "device",
}


def lists() -> Iterator[tuple[str, tuple[str, ...], set[str]]]:
    """Every list of the corpus, with the holes that its lines may have."""
    for kind in ASKS.kinds:
        for name, action in kind.actions.items():
            arguments = {"x", "y", "z", "number", "euros"}
            for key in AskedAction.model_fields:
                holes = OF_KINDS | arguments | ({"other"} if key == "pairs" else set())
                yield f"{kind.kind}.{name}.{key}", getattr(action, key), holes
        for name, asked in kind.questions.items():
            yield from (
                (f"{kind.kind}.{name}.{key}", getattr(asked, key), OF_KINDS) for key in AskedProperty.model_fields
            )
    for file, keys in ASKS.forms.items():
        yield from ((f"{file}.{key}", lines, OF_FORMS) for key, lines in keys.items())
    yield from ((f"chitchat.{answer}", lines, set()) for answer, lines in ASKS.chitchat.items())


def test_lines_have_known_holes_and_none_is_there_twice() -> None:
    count = 0
    for name, lines, holes in lists():
        count += len(lines)
        assert [line for line in lines if set(re.findall(r"{(.*?)}", line)) - holes] == [], name
        assert [line for line, times in Counter(map(str.lower, lines)).items() if times > 1] == [], name
    assert count > 12_000


def scenes(count: int) -> Iterator[Scene]:
    rng = Random(5)
    for number in range(count):
        site = HOME if number % 2 else random_site(rng)
        stage = Stage.of(site, None, ASKS)
        yield Scene(site, stage.tools, random_world(site, rng).snapshot(), rng, False, ASKS)


def test_every_maker_makes_plans_that_the_broker_can_carry_out() -> None:
    made: Counter[str] = Counter()
    for scene in scenes(60):
        stage = Stage.of(scene.site, None, ASKS)
        for name, (_, maker) in PEOPLE_MAKERS.items():
            if (plan := maker(scene)) is None:
                continue
            made[name] += 1
            assert plan.ask.strip() and "{" not in plan.ask, plan
            _, outcomes = carry_out(plan, stage, World(scene.site, scene.state))
            assert bool(outcomes) == bool(plan.steps), plan
            assert not plan.steps or not plan.answer
            assert len(plan.thought) <= 400, plan.thought
    assert made.keys() == PEOPLE_MAKERS.keys() and min(made.values()) >= 5, made


def commands_of(plan: Plan) -> list[Command]:
    return [one for step in plan.steps for one in step if isinstance(one, Command)]


def test_several_devices_get_one_action_with_its_values_and_the_exception_none() -> None:
    made: Counter[str] = Counter()
    for scene in scenes(400):
        plan = plan_many(scene)
        if plan is None:
            continue
        commands = commands_of(plan)
        assert len({(one.action, str(one.input)) for one in commands}) == 1
        kinds = {scene.site.devices[one.device].kind for one in commands}
        made["mixed"] += len(kinds) == 2
        assert all(one.device in plan.thought for one in commands)
        assert len({one.device for one in commands}) == len(commands) >= (1 if " but " in plan.thought else 2)
        tool = next(
            one for one in scene.tools if one.action == commands[0].action and commands[0].device in one.devices
        )
        if plan.thought.startswith("All of"):
            left_out = set(tool.devices) - {one.device for one in commands}
            assert bool(left_out) == (" but " in plan.thought) and len(left_out) <= 2
            assert all(f" is {name}" in plan.thought for name in left_out)
        made["values" if commands[0].input else "none"] += 1
        assert all(f"{name}=" in plan.thought for name in commands[0].input)
    assert min(made["values"], made["none"], made["mixed"]) > 10, made


def test_two_or_three_wishes_in_one_breath_are_of_different_devices_and_all_thought_of() -> None:
    parts: Counter[int] = Counter()
    for scene in scenes(250):
        plan = plan_several(scene)
        if plan is None:
            continue
        commands = commands_of(plan)
        assert len({one.device for one in commands}) == len(commands)
        assert all(one.device in plan.thought for one in commands) and len(plan.steps) == 1
        parts[plan.thought.count("; ") + 1] += 1
    assert min(parts[2], parts[3]) > 20, parts


def test_a_condition_with_an_otherwise_does_one_of_the_two() -> None:
    made: Counter[bool] = Counter()
    for scene in scenes(600):
        plan = plan_condition(scene)
        if plan is None or not plan.thought.startswith("if or else"):
            continue
        is_so = ": yes; " in plan.thought
        assert is_so != (": no; " in plan.thought) and len(commands_of(plan)) == 1
        made[is_so] += 1
    assert min(made.values()) > 5, made


def test_facts_are_about_properties_that_models_have() -> None:
    schemas = {
        name: DataSchema(**schema)
        for model in load_models().values()
        for name, schema in model.get("properties", {}).items()
    }
    for form, lines in ASKS.forms["facts"].items():
        name, way = form.split(" ")
        assert way in (("yes", "no") if schemas[name].type == "boolean" else ("above", "below")), form
        assert all(("{value}" in line) == (way in ("above", "below")) for line in lines), form


def test_a_relative_wish_is_what_its_words_say() -> None:
    scene = next(scenes(2))
    scene = Scene(HOME, Stage.of(HOME, None, ASKS).tools, World(HOME).snapshot(), Random(1), False, ASKS)
    lamp = next(item for item in settable(scene) if item[1] == "brightness")
    found = {}
    for way in WAYS:
        plan = relative_plan(scene, (*lamp[:5], 40.0), way)
        if plan:
            found[way] = plan.steps[0][0].input["brightness"]  # type: ignore[union-attr]
    wanted = {"max": 100, "min": 1, "half": 50, "quarter": 25, "three_quarters": 75, "more": 60, "less": 20,
              "a_bit_more": 50, "a_bit_less": 30, "much_more": 80, "much_less": 0, "double": 80, "halve": 20,
              "hints_more": 60, "hints_less": 20, "third": 33, "two_thirds": 67}  # fmt: skip
    assert found.items() <= wanted.items() and len(found) >= 12


@pytest.mark.parametrize(("low", "high", "step", "expected"), [(0, 100, None, 10), (10, 28, None, 1), (0, 3, None, 1),
                                                                (5, 30, 0.5, 2), (153, 500, None, 20)])  # fmt: skip
def test_the_usual_step_is_a_round_tenth_of_the_range(low: int, high: int, step: float | None, expected: float) -> None:
    schema = DataSchema(type="number" if step else "integer", minimum=low, maximum=high, step=step)
    assert usual_step(schema) == expected
    assert allowed(schema, high + 5) == high and allowed(schema, low - 5) == low


def test_what_shall_stay_as_it_is_not_is_a_hint() -> None:
    world, tools = World(HOME), Stage.of(HOME, None, ASKS).tools
    world.state["kitchen_light"] |= {"on": True, "brightness": 80}
    scene = Scene(HOME, tools, world.snapshot(), Random(1), False, ASKS)
    plans = [plan for _ in range(300) for plan in [plan_hint(scene)] if plan and " stay off" in plan.ask.lower()]
    assert plans and all(plan.steps[0][0] == Command("kitchen_light", "off", {}) for plan in plans)


def test_follow_ups_refer_to_what_was_before() -> None:
    made: Counter[str] = Counter()
    rng, makers = Random(3), (plan_many, plan_call, plan_asked_question, plan_confirmed, plan_missing_argument)
    for number in range(250):
        site = HOME if number % 2 else random_site(rng)
        stage, world = Stage.of(site, None, ASKS), random_world(site, rng)
        scene = Scene(site, stage.tools, world.snapshot(), rng, False, ASKS)
        if (plan := makers[number % len(makers)](scene)) is None:
            continue
        state = world.snapshot()
        _, outcomes = carry_out(plan, stage, world)
        before = Before(plan, tuple(one.command for one in outcomes if one.status == "done"), state)
        after = Scene(site, stage.tools, world.snapshot(), rng, False, ASKS)
        for name, (_, maker) in FOLLOW_UPS.items():
            if (found := maker(after, before)) is None:
                continue
            made[name] += 1
            copy = World(site, world.snapshot(), world.time_s)
            _, later = carry_out(found, stage, copy)
            moved = [one.command.device for one in later if one.status == "done"]
            back = {"undo": before.done[-1:], "except": tuple(one.command for one in later)}.get(name, ())
            for command in back if later and later[0].status == "done" else ():
                main = next(iter(site.devices[command.device].actions[command.action].writes))
                assert copy.snapshot()[command.device][main] == state[command.device][main]
            if name == "other_device":
                assert not {*moved} & {one.device for one in before.done}
            if name in ("keep", "forget", "thanks", "what_about", "only_asking", "question"):
                assert not later and found.answer
    assert made.keys() == FOLLOW_UPS.keys(), made


def test_rows_in_peoples_words_are_the_same_for_the_same_seed() -> None:
    rows = list(generate_rows(HOME, 100, 1, asks=ASKS))
    assert rows == list(generate_rows(HOME, 100, 1, asks=ASKS))
    kinds = {kind for row in rows for kind in row.kinds}
    assert {"relative", "hint"} <= kinds and any(kind.startswith("follow_") for kind in kinds)
    said = [request_of(message.text) for row in rows for message in row.messages if message.role == "user"]
    assert len(set(said)) > 0.95 * len(said)


def test_numbers_are_said_in_words() -> None:
    assert [number_words(one) for one in (0, 13, 21, 100, 105, 1042, 9999)] == [
        "zero", "thirteen", "twenty-one", "one hundred", "one hundred and five", "one thousand and forty-two",
        "nine thousand nine hundred and ninety-nine"]  # fmt: skip
    schema = DataSchema(type="number", minimum=5, maximum=30, unit="degrees", step=0.5)
    said = {spoken_value(schema, 21.5, Random(seed)) for seed in range(60)}
    assert {"21.5 degrees", "twenty-one and a half degrees", "21.5"} <= said


def test_round_times_are_also_said_in_the_larger_unit() -> None:
    seconds = DataSchema(type="integer", minimum=5, maximum=120, unit="seconds")
    minutes = DataSchema(type="integer", minimum=1, maximum=60, unit="minutes")
    assert {30, 60, 90, 120} <= set(round_times(seconds)) == set(round_times(minutes))
    assert round_times(DataSchema(type="integer", minimum=0, maximum=100, unit="percent")) == []
    said = {spoken_value(seconds, 90, Random(seed)) for seed in range(60)}
    assert {"a minute and a half", "one and a half minutes", "90 seconds"} <= said
    assert {"half an hour", "30 minutes"} <= {spoken_value(minutes, 30, Random(seed)) for seed in range(60)}


def test_a_slip_of_the_fingers_leaves_digits_and_names_alone() -> None:
    for seed in range(300):
        typed = as_typed("please set the kitchen light to 40 percent", Random(seed), ["kitchen light"])
        assert "40" in typed and "kitchen light" in typed.lower()


def test_plans_know_what_a_value_was_asked_back_for() -> None:
    plans: list[Plan] = []
    for scene in scenes(20):
        plans += [plan for plan in [plan_missing_argument(scene)] if plan]
    assert plans and all(plan.asked and plan.asked.device in plan.thought for plan in plans)


def test_no_request_that_is_held_out_is_trained_on() -> None:
    assert len(ASKS.held_out) > 1000
    rows = list(generate_rows(HOME, 300, 2, asks=ASKS))
    firsts = [request_of(row.messages[1].text) for row in rows]
    assert not [ask for ask in firsts if content_of(ask) in ASKS.held_out]


def test_requests_by_name_have_no_hole_that_arguments_do_not_fill() -> None:
    count = 0
    for scene in scenes(25):
        for device in scene.site.devices.values():
            for name, action in device.actions.items():
                shown = scene.shown(action, scene.arguments_for(device, action))
                for template in scene.requests_by_name(device, name):
                    assert "THE LAMP" in template.format(device="THE LAMP", **shown), template
                    count += 1
    assert count > 3000


def test_every_line_of_the_corpus_is_about_something_that_a_model_has() -> None:
    models = [model for model in load_models().values() if "kind" in model]
    for asks in ASKS.kinds:
        own = [model for model in models if model["kind"] == asks.kind]
        assert asks.actions.keys() <= {name for model in own for name in model.get("actions", {})}
        schemas = [item for model in models for item in model.get("properties", {}).items()]
        values = {str(value) for _, schema in schemas for value in schema.get("enum", ())}
        known = {key for key, _ in schemas} | values | {value.split("_")[0] for value in values}
        assert asks.questions.keys() <= known


def test_people_ask_whether_a_state_is_so() -> None:
    device = next(d for d in load_site("home").devices.values() if d.properties).model_copy(
        update={"kind": "vacuum", "properties": {"state": DataSchema(type="string", enum=("docked", "cleaning"))}}
    )
    assert {"is {device} docked"} <= {line for one in ASKS.states(device, "state") for line in one.yes}
