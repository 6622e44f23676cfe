"""Sentences of Home Assistant's community beside the corpus: which, for what, and that nothing else changes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from edgewright import main
from finetune.data.generator import Stage, carry_out, draw_plan, random_world
from finetune.data.held_out import is_held_out
from finetune.data.people.asks import load_asks
from finetune.data.people.intent_grammar import IntentGrammar
from finetune.data.people.intents import CREDIT, LINES, IntentLines, sample_intents
from finetune.data.random_sites import random_site
from finetune.recipe import load_recipe

ASKS, HOME, ENGLISH = load_asks(), load_site("home"), sample_intents("en", 1)
JOINED = ASKS.joined_by(ENGLISH.actions, ENGLISH.questions)
RECIPE = """
schema: recipe/v1
base: starter
site: home
data: {data}
out: runs/x
training: {{steps: 1}}
generate: {{rows: 240, asks: true, sites: {{devices: [3, 5]}}{more}}}
"""


def lists(lines: IntentLines) -> dict[tuple[str, str, str], tuple[str, ...]]:
    asked = [*lines.actions.items(), *lines.questions.items()]
    return {(*of, form): found for of, one in asked for form, found in one if found}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("turn on [the] {name}", {"turn on {device}"}),
        ("set {name} to {level}[([ ]%)| percent]", {"set {device} to {value}"}),
        ("[<art> ]{area} <kind>", {"{area} lamp"}),
        ("({name};[please] stop)", {"{device} stop", "{device} please stop", "stop {device}", "please stop {device}"}),
        ("{floor} off", set()),
    ],
)
def test_a_template_is_said_without_the_words_that_holes_have(template: str, said: set[str]) -> None:
    holes = {"name": "device", "area": "area", "level": "value"}
    grammar = IntentGrammar({"art": "(the|my)", "kind": "lamp"}, {"level": {"range": {}}}, holes, Random(1))
    assert {line for line, _ in grammar.say(template, 40)} == said


def test_what_is_picked_of_a_list_is_known() -> None:
    lists = {"state": {"values": [{"in": "open", "out": "on"}, {"in": "(closed|shut)", "out": "off"}]}}
    grammar = IntentGrammar({}, lists, {"name": "device", "step": "amount"}, Random(1))
    assert set(grammar.say("is {name} {state}", 40)) == {
        ("is {device} open", ("on",)), ("is {device} closed", ("off",)), ("is {device} shut", ("off",))}  # fmt: skip
    assert grammar.say("up by {step}", 1) == [("up by {amount}", ("step",))]


def test_sentences_are_the_same_for_the_same_seed_and_not_too_many() -> None:
    found = lists(ENGLISH)
    assert found == lists(sample_intents("en", 1)) != lists(sample_intents("en", 2))
    assert ENGLISH.count == sum(map(len, found.values())) > 400
    assert max(map(len, found.values())) <= 2 * LINES
    assert ENGLISH.used >= 20 and ENGLISH.left_out >= 20


def test_sentences_are_for_what_they_say() -> None:
    found = lists(ENGLISH)
    assert "unlock {device}" in found["lock", "unlock", "ask"]
    assert "close {device}" in found["valve", "close", "ask"] and ("valve", "open", "ask") not in found
    assert "is {device} shut" in found["binary_sensor", "open", "no"]
    assert "which doors are unlocked" in found["lock", "locked", "which_not"]
    assert "is {device} off" in found["light", "on", "no"]
    assert all("by {amount}" in line for line in found["media_player", "set_volume", "more_by"])
    for (_, name, form), lines in found.items():
        has_value = form == "ask" and name in ("brightness", "color", "color_temp", "set", "set_volume")
        assert all(("{value}" in line) == has_value for line in lines), (name, form)
        assert not [line for line in lines if re.search(r"\b(the|my|our) \{|% |\} (%|percent)", line)]


def test_they_join_the_corpus_behind_its_own_lines() -> None:
    lamp = HOME.devices["kitchen_light"]
    own, joined = ASKS.action(lamp, "brightness"), JOINED.action(lamp, "brightness")
    assert joined.ask[: len(own.ask)] == own.ask and len(set(joined.ask)) == len(joined.ask) > len(own.ask)
    assert joined.hints == own.hints and ASKS.action(lamp, "brightness") is own


def test_plans_of_them_are_done_and_none_is_held_out() -> None:
    theirs = {line for found in lists(ENGLISH).values() for line in found}
    own = {line for kind in ASKS.kinds for one in kind.actions.values() for _, found in one for line in found}
    rng, used = Random(2), set()
    for number in range(90):
        site = HOME if number % 2 else random_site(rng, (3, 8))
        stage, world = Stage.of(site, None, JOINED), random_world(site, rng)
        for _ in range(8):
            plan = draw_plan(stage, world, rng, held_out=False)
            if not (said := (theirs - own) & set(plan.templates)):
                continue
            used |= said
            assert not any(map(is_held_out, said)) and "{" not in plan.ask
            _, outcomes = carry_out(plan, stage, World(site, world.snapshot()))
            assert bool(outcomes) == bool(plan.steps), plan
    assert len(used) > 10


def test_another_language_has_the_same_holes() -> None:
    found = lists(sample_intents("de", 1))
    assert any(line.startswith("schalt") for line in found["light", "on", "ask"])
    holes = {hole for lines in found.values() for line in lines for hole in re.findall(r"{(\w+)}", line)}
    assert holes <= {"device", "area", "value", "amount"}


def test_an_unknown_language_is_one_line() -> None:
    with pytest.raises(UsageError, match="no sentences in 'tlh'") as caught:
        sample_intents("tlh", 1)
    assert "de, " in caught.value.hint and "\n" not in caught.value.hint


@pytest.mark.parametrize("package", ["home_assistant_intents", "hassil.expression"])
def test_a_missing_package_is_one_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "finetune.data.people.intent_grammar", raising=False)
    with pytest.raises(UsageError, match=f"generate.intents needs the package {package}") as caught:
        sample_intents("en", 1)
    assert caught.value.hint == "pip install edgewright[intents]"


def test_the_packages_are_read_only_when_asked_for(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(data=tmp_path / "rows.jsonl", more=""), encoding="utf-8")
    code = (
        "import sys, edgewright\n"
        f"assert edgewright.main(['data', 'generate', '--recipe', {str(recipe)!r}, '-n', '2']) == 0\n"
        "assert not {'hassil', 'home_assistant_intents'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_recipe_asks_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {}
    for more in ("", ", intents: en"):
        recipe, data = tmp_path / "recipe.yaml", tmp_path / f"rows{len(rows)}.jsonl"
        recipe.write_text(RECIPE.format(data=data, more=more), encoding="utf-8")
        assert main(["data", "generate", "--recipe", str(recipe)]) == 0
        rows[more] = data.read_bytes()
        assert (CREDIT in capsys.readouterr().err) == bool(more)
        loaded = load_recipe(recipe)
        complete = loaded.to_yaml()
        assert (CREDIT in complete) == bool(more)
        recipe.write_text(complete, encoding="utf-8")
        assert load_recipe(recipe) == loaded
    assert len(set(rows.values())) == 2


def test_they_need_the_corpus() -> None:
    with pytest.raises(UsageError, match="set asks to true"):
        load_recipe("home", ["generate.intents=en", "generate.asks=false"])
