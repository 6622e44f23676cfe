"""What is said of devices: own templates and shared lists, a box that reads none, and a kind that is YAML only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from devices.site import phrasings
from devices.site import site as sites
from devices.site.phrasings import load_phrasings
from devices.site.renaming import renamed
from devices.site.site import load_models, load_site
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edgewright import main
from finetune.data.generator import generate_cases, generate_rows
from finetune.data.random_sites import random_site

SITE = """
schema: site/v1
name: cellar
title: a cellar
devices:
  lamp:
    model: light
    actions:
      "on": {say: SAY}
"""
FOGGER_MODEL = """
fogger:
  kind: fogger
  properties:
    "on": {type: boolean, labels: {true: "on", false: "off"}}
    humidity_pct: {type: integer, minimum: 30, maximum: 80, unit: percent, title: humidity}
  actions:
    "on": {writes: {"on": true}, say: [humidify]}
    set:
      title: humidity
      input: {humidity_pct: {type: integer, minimum: 30, maximum: 80, unit: percent}}
      writes: {humidity_pct: $humidity_pct}
      say: [set_fog]
"""
FOGGER_PHRASINGS = {
    "kinds:\n": "  fogger:\n    names: [mister]\n"
    '    group: {singular: mister, plural: misters, verbs: {"on": humidify}}\n',
    "arguments:": "  humidity_pct: {names: [dampness], ranges: [[20, 90]]}\n",
    "\nnouns:": "  fogger: [vaporizer]\n",
    "\nrequests:": '  humidify: ["let {device} make mist", "make mist with {device}"]\n'
    '  set_fog: ["set {device} to {humidity_pct} percent humidity"]\n',
}


@pytest.fixture
def with_fogger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    models = sites.MODELS_FILE.read_text(encoding="utf-8") + FOGGER_MODEL
    words = phrasings.PHRASINGS_FILE.read_text(encoding="utf-8")
    for section, lines in FOGGER_PHRASINGS.items():
        before, found, after = words.partition(section)
        comment, end, rest = ("", "", after) if section.endswith("\n") else after.partition("\n")
        words = before + found + comment + end + lines + rest
    for module, name, text in ((sites, "MODELS_FILE", models), (phrasings, "PHRASINGS_FILE", words)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.setattr(module, name, tmp_path / name)
    load_models.cache_clear()
    load_phrasings.cache_clear()
    yield
    load_models.cache_clear()
    load_phrasings.cache_clear()


def cellar(tmp_path: Path, say: str) -> Path:
    path = tmp_path / "cellar.yaml"
    path.write_text(SITE.replace("SAY", say), encoding="utf-8")
    return path


def test_a_site_says_its_own_beside_what_it_names(tmp_path: Path) -> None:
    own = '"wake {device}"'
    actions = load_site(cellar(tmp_path, f"[{own}]")).devices["lamp"].actions
    assert actions["on"].requests == ("wake {device}",) and "turn off {device}" in actions["off"].requests
    both = load_site(cellar(tmp_path, f"[turn_on, {own}]")).devices["lamp"].actions["on"]
    assert both.requests == (*load_phrasings().requests["turn_on"], "wake {device}")


@pytest.mark.parametrize("say", ['["wake it"]', '["wake {device} to {brightness}"]'])
def test_a_template_without_its_holes_is_refused_with_its_line(
    say: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cellar(tmp_path, say)
    assert main(["devices", "list", "--site", str(path)]) == 2
    printed = capsys.readouterr().err
    assert f"{path}:9: devices.lamp.actions.on: say 'wake " in printed and "must have {device} and every arg" in printed


@pytest.mark.parametrize(
    ("say", "message"),
    [
        ("[turn_onn]", "no list of phrasings is called 'turn_onn'; hint: did you mean turn_on?"),
        ("[set_brightness]", "say 'set {device} to {brightness} percent' must have {device} and every argument"),
    ],
)
def test_a_list_that_is_not_there_or_does_not_fit_is_found_by_the_check(
    say: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cellar(tmp_path, say)
    assert main(["devices", "check", str(path)]) == 2
    printed = capsys.readouterr().err
    assert f"{path}:9: devices.lamp.actions.on: " in printed and message in printed
    rows = str(tmp_path / "rows.jsonl")
    assert main(["data", "generate", "--site", str(path), "--out", rows, "-n", "2"]) == 2
    assert message in capsys.readouterr().err


def test_a_box_reads_no_phrasings(capsys: pytest.CaptureFixture[str]) -> None:
    load_phrasings.cache_clear()
    for words in (["--help"], ["devices", "list"], ["devices", "call", "kitchen_light", "on"], ["devices", "read"]):
        assert main(words) == 0
    contract_of(load_site("home"), load_template("chatml"))
    assert capsys.readouterr().out and load_phrasings.cache_info().currsize == 0
    renamed(load_site("home"), Random(1))
    assert load_phrasings.cache_info().currsize == 1


def test_every_model_has_words_and_no_word_is_left_over() -> None:
    models, words = load_models(), load_phrasings()
    named = [*words.nouns, *words.more_nouns, *words.sensor_nouns, *words.other_nouns]
    assert len(named) == len(set(named)) and {part for name in named for part in name.split(" + ")} == models.keys()
    actions = {(name, model["kind"], action) for name, model in models.items() for action in model.get("actions", {})}
    said = [models[name]["actions"][action] for name, _, action in actions]
    assert {name for action in said for key in ("say", "say_without") for name in action.get(key, [])} == set(
        words.requests
    )
    assert words.arguments.keys() <= {name for action in said for name in action.get("input", {})}
    assert words.actions.keys() <= {action for _, _, action in actions}
    assert words.kinds.keys() <= {kind for _, kind, _ in actions}
    for kind, found in words.kinds.items():
        assert {(kind, verb) for verb in (found.group.verbs if found.group else {})} <= {one[1:] for one in actions}
    for name, templates in words.requests.items():
        assert len(set(templates)) == len(templates), name
        assert any(template.split(" ")[0] in words.verbs for template in templates), name


def test_a_new_kind_of_device_is_yaml_only(with_fogger: None, tmp_path: Path) -> None:
    path = tmp_path / "mist.yaml"
    devices = "".join(f"  {place}_mist: {{model: fogger}}\n" for place in ("hall", "attic", "lab"))
    path.write_text(f"schema: site/v1\nname: mist\ntitle: a house\ndevices:\n{devices}", encoding="utf-8")
    site = load_site(path)
    asks = [row.messages[1].text.lower() for row in generate_rows(site, 200, 1)]
    for said in ("make mist", "percent humidity", " misters"):
        assert any(said in ask for ask in asks), said
    assert len(list(generate_cases(site, 20, 1))) == 20
    for device in renamed(site, Random(1)).devices.values():
        assert device.kind == "mister" and [*device.actions.values()][1].input.keys() == {"dampness"}
    made = [device for seed in range(60) for device in random_site(Random(seed)).devices.values()]
    foggers = [device for device in made if "humidity_pct" in device.properties]
    assert any("vaporizer" in device.title for device in foggers)
    assert {device.properties["humidity_pct"].maximum for device in foggers} == {90}
