"""Conversations and cases: what is in them, that they are the same again, and that the split holds."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.phrasings import load_phrasings
from devices.site.site import Site, load_site
from devices.site.tools import Command, ToolCall
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import INTRODUCTION, contract_of, introduction_in
from edge_agent.wire.messages import body_of
from edge_agent.wire.parsing import Answer, ToolCalls, parse_reply
from edgewright import main
from finetune.data import phrases
from finetune.data.generator import (
    Stage,
    carry_out,
    draw_plan,
    generate_any_site,
    generate_cases,
    generate_rows,
    make_branches,
    random_world,
)
from finetune.data.held_out import is_held_out, side
from finetune.data.plan_kinds import MAKERS, ONLY_WHERE
from finetune.data.random_sites import Sites, random_site
from finetune.data.rows import read_rows
from finetune.data.scene import Scene
from finetune.recipe import RECIPES_FOLDER
from tests.den import den
from tests.home_with_areas import home_with_areas

SEVERAL = ("area", "everything", "except", "list", "missing_area")
SITE = load_site("home")
STAGE = Stage.of(SITE)


def drawn_templates(site: Site, held_out: bool, count: int, seed: int) -> set[str]:
    rng, stage, used = Random(seed), Stage.of(site), set()
    for _ in range(count):
        world = random_world(site, rng)
        used |= set(draw_plan(stage, world, rng, held_out=held_out).templates)
    return used


def test_conversations_of_any_sites_start_alike_site_by_site() -> None:
    wanted = Sites(devices=(3, 5), rows=6, long_rows=1, exchanges=(2, 2))
    rows = list(generate_any_site(20, 7, wanted))
    assert rows == list(generate_any_site(20, 7, wanted)) and len(rows) == 20
    starts = [(row.messages[0], row.messages[1].text.partition("\nclock")[0]) for row in rows]
    assert [len(set(starts[at : at + 6])) for at in (0, 6, 12)] == [1, 1, 1] and len(set(starts)) == 4
    assert [len(row.kinds) for row in rows[:12]] == [1, 1, 1, 1, 1, 2] * 2
    for row in rows:
        assert introduction_in(row.messages[0].text) == INTRODUCTION


def test_some_conversations_of_any_sites_end_with_their_first_call() -> None:
    wanted = Sites(devices=(3, 5), rows=12, long_rows=2, cut_share=1.0)
    for row in generate_any_site(48, 7, wanted):
        calls = [number for number, message in enumerate(row.messages, start=1) if message.calls]
        assert len(row.kinds) > 1 or not calls or calls[0] == len(row.messages)


def test_no_device_of_any_sites_has_a_title_that_no_state_shows() -> None:
    asked = {message.text for row in generate_any_site(400, 5, Sites()) for message in row.messages}
    assert not any(title in text for text in asked for title in load_phrasings().strange_titles if not title.isascii())


def test_every_kind_is_there() -> None:
    usual = {kind for kind, (weight, _) in MAKERS.items() if weight}
    plain = usual - set(ONLY_WHERE)
    for site, wanted in ((SITE, plain - set(SEVERAL)), (home_with_areas(), plain), (den(), usual - {"policy"})):
        assert {kind for row in generate_rows(site, 300, 1) for kind in row.kinds} == wanted
        assert {case.kind for case in generate_cases(site, 400, 1)} == wanted - {"recital"}


def test_same_seed_same_rows_other_seed_other_rows() -> None:
    first, again, other = ([row.to_json() for row in generate_rows(SITE, 20, seed)] for seed in (7, 7, 8))
    assert first == again and not set(first) & set(other)


def test_held_out_and_training_share_no_template() -> None:
    trained = drawn_templates(SITE, False, 1500, 1)
    held_out = drawn_templates(SITE, True, 1500, 2)
    assert trained and held_out and not trained & held_out
    for number in range(20):
        assert not drawn_templates(random_site(Random(number)), False, 50, number) & held_out


def test_every_list_of_phrasings_has_both_sides() -> None:
    shared = phrases.load_templates()
    lists = [*load_phrasings().requests.values(), *load_phrasings().by_title.values(), *shared.small_talk.values()]
    lists += [shared.frames, shared.verb_frames, shared.together, shared.in_order, shared.groups, shared.changes]
    lists += [shared.several, shared.everything, shared.everywhere, shared.excepted]
    lists += [shared.questions.yes_no, shared.questions.value, shared.questions.status, shared.which_one]
    for templates in lists:
        assert side(templates, False) and side(templates, True), templates


def test_fillers_leave_the_words_of_a_template_as_they_were() -> None:
    rng, template = Random(2), "set {device} to {value} percent"
    loose = {phrases.loosen(template, rng) for _ in range(300)}
    assert len(loose) > 200
    for text in loose:
        words = iter(text.split(" "))
        assert all(word in words for word in template.split(" "))


def test_no_held_out_case_has_fillers(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = [case.ask for case in generate_cases(SITE, 60, 3)]
    trained = [row.messages[1].text for row in generate_rows(SITE, 60, 3)]
    monkeypatch.setattr("finetune.data.scene.LOOSE_SHARE", 0.0)
    assert asks == [case.ask for case in generate_cases(SITE, 60, 3)]
    assert trained != [row.messages[1].text for row in generate_rows(SITE, 60, 3)]


def test_arguments_names_do_not_move_a_template_to_the_other_side() -> None:
    assert is_held_out("set {device} to {brightness}") == is_held_out("set {device} to {speed}")


@pytest.mark.parametrize("number", range(12))
def test_every_reply_in_training_is_one_that_the_parser_takes(number: int) -> None:
    rng = Random(number)
    site = SITE if number == 0 else random_site(rng)
    tools = contract_of(site, load_template("chatml")).tools
    for row in generate_rows(site, 15, number):
        for message in row.messages:
            if message.role == "assistant":
                assert isinstance(parse_reply(body_of(message), tools), ToolCalls | Answer), body_of(message)
        for first, second in pairwise(row.messages):
            assert (second.role == "tool") == bool(first.calls)


def test_questions_and_talk_never_act_and_change_nothing() -> None:
    rng = Random(3)
    seen = set()
    for _ in range(600):
        world = random_world(SITE, rng)
        plan = draw_plan(STAGE, world, rng, held_out=False)
        before = world.snapshot()
        messages, outcomes = carry_out(plan, STAGE, world)
        if not plan.steps:
            seen.add(plan.kind)
            assert not outcomes and world.snapshot() == before and len(messages) == 2
            text = messages[-1].text.lower()
            assert all(any(word in text for word in words) for words in plan.answer_has), (plan, text)
    assert {"question", "small_talk", "unsupported", "out_of_range", "missing_argument", "missing_device"} <= seen


def test_a_device_that_is_not_here_is_no_device_in_other_capitals() -> None:
    titles = {name: device.title.title() for name, device in SITE.devices.items()}
    devices = {
        name: device.model_copy(update={"title": titles[name], "aliases": ()}) for name, device in SITE.devices.items()
    }
    stage, rng, seen = Stage.of(SITE.model_copy(update={"devices": devices}), {"missing_device": 1.0}), Random(1), 0
    for _ in range(3000):
        plan = MAKERS["missing_device"][1](Scene(stage.site, stage.tools, World(stage.site).snapshot(), rng, False))
        if plan is not None:
            seen += 1
            assert {plan.thought.removesuffix(" is no device.").lower()}.isdisjoint(map(str.lower, titles.values()))
    assert seen > 1000


def test_a_sequence_stops_where_a_step_is_not_done() -> None:
    rng = Random(5)
    while True:
        world = random_world(SITE, rng)
        plan = draw_plan(STAGE, world, rng, held_out=False)
        if plan.kind == "in_order":
            break
    first = plan.steps[0][0]
    assert isinstance(first, Command)
    stuck = type(plan)(**{**plan.__dict__, "stuck": (first.device,)})
    messages, outcomes = carry_out(stuck, STAGE, world)
    assert [outcome.status for outcome in outcomes] == ["failed"]
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant"]


def test_what_is_already_so_and_a_whole_group_are_left_to_the_broker() -> None:
    rng, seen = Random(6), Counter()
    while seen["already"] < 20 or seen["group"] < 20:
        world = random_world(SITE, rng)
        plan = draw_plan(STAGE, world, rng, held_out=False)
        before = world.snapshot()
        _, outcomes = carry_out(plan, STAGE, world)
        seen[plan.kind] += 1
        if plan.kind == "already":
            assert [outcome.status for outcome in outcomes] == ["done"] and world.snapshot() == before
        if plan.kind == "group":
            tool = next(tool for tool in STAGE.tools if tool.name in plan.thought)
            assert tuple(outcome.command.device for outcome in outcomes) == tool.devices


def test_several_devices_at_once_are_one_call_and_exactly_those() -> None:
    """Of random sites with areas: who is named is moved, who is excepted is not, and nothing else changes."""
    seen = Counter[str]()
    for number in range(150):
        rng = Random(number)
        stage = Stage.of(random_site(rng, (6, 14)), dict.fromkeys(MAKERS, 0.0) | dict.fromkeys(SEVERAL, 1.0))
        if not stage.site.targets:
            continue
        world = random_world(stage.site, rng)
        try:
            plan = draw_plan(stage, world, rng, held_out=number % 2 == 1)
        except UsageError:
            continue  # no two devices of this site can do the same
        seen[plan.kind] += 1
        before = world.snapshot()
        _, outcomes = carry_out(plan, stage, world)
        for call in plan.steps[0] if plan.steps else ():
            assert isinstance(call, ToolCall)
            tool = next(tool for tool in stage.tools if tool.name == call.name)
            area, excepted = call.arguments.get("area"), call.arguments.get("except", [])
            wanted = call.arguments["device"] if area is None else tool.targets[str(area)]
            assert isinstance(wanted, list | tuple) and isinstance(excepted, list)
            moved = [one.command.device for one in outcomes if one.command.action == call_action(stage, call.name)]
            assert set(wanted) - set(excepted) <= set(moved) and not set(excepted) & set(moved)
            for name in excepted:
                assert world.snapshot()[name] == before[name]
    assert all(seen[kind] > 3 for kind in SEVERAL), seen


def call_action(stage: Stage, name: str) -> str:
    return next(tool.action for tool in stage.tools if tool.name == name)


def test_branches_start_in_one_state() -> None:
    rows = make_branches(STAGE, Random(8), 30)
    starts = {row.messages[1].text.partition("Request: ")[0] for row in rows}
    assert len(rows) == 30 and len(starts) == 1


def test_cases_carry_the_reference_outcome() -> None:
    for case in generate_cases(SITE, 200, 4):
        assert len(case.statuses) == len(case.commands)
        if not case.commands:
            assert case.state == case.state_after
        if case.kind == "confirmation":
            assert case.statuses[0] == ("done" if case.is_confirmed else "needs_confirmation")


def test_kinds_have_the_weights_that_are_asked_for() -> None:
    rows = list(generate_rows(SITE, 60, 1, kinds={"small_talk": 50.0, "call": 0.0}))
    kinds = Counter(kind for row in rows for kind in row.kinds)
    assert kinds["small_talk"] > 50 and not kinds["call"]
    site = SITE.model_copy(update={"devices": {"hall_motion": SITE.devices["hall_motion"]}})
    nothing = dict.fromkeys(MAKERS, 0.0)
    with pytest.raises(UsageError, match="site home offers no exchange of these kinds: group"):
        next(generate_rows(site, 1, 1, kinds=nothing | {"group": 1.0}))
    with pytest.raises(UsageError, match="none is wanted"):
        next(generate_rows(SITE, 1, 1, kinds=nothing))


def test_a_recipe_makes_its_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (RECIPES_FOLDER / "home.yaml").read_text(encoding="utf-8")
    data = tmp_path / "rows.jsonl"
    changes = {"data/home/train.jsonl": str(data), "rows: 11000": "rows: 20", "kinds: {}": "kinds: {small_talk: 9}"}
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text, encoding="utf-8")
    assert main(["data", "generate", "--recipe", str(recipe)]) == 0
    assert list(read_rows(data)) == list(generate_rows(SITE, 20, 1, kinds={"small_talk": 9.0}))
    assert main(["data", "generate", "--recipe", str(recipe), "-n", "3", "--site", "greenhouse"]) == 0
    assert list(read_rows(data)) == list(generate_rows(load_site("greenhouse"), 3, 1, kinds={"small_talk": 9.0}))
    assert main(["data", "generate", "-n", "3"]) == 2 and "give --out" in capsys.readouterr().err
    recipe.write_text(text.replace("small_talk", "smalltalk"), encoding="utf-8")
    assert main(["data", "generate", "--recipe", str(recipe)]) == 2
    assert "no kind of exchange is called 'smalltalk'" in capsys.readouterr().err
