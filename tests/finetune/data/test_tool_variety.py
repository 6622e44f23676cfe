"""Rows with other tools: what changes in them, and that training takes them and nothing else."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from transformers import AutoTokenizer

from devices.errors import UsageError
from devices.site.phrasings import load_phrasings
from devices.site.site import Site, load_site
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from finetune.data.encoded_rows import encode_rows
from finetune.data.generator import generate_cases, generate_rows
from finetune.data.rows import Row, read_rows, write_rows
from finetune.data.tool_variety import Variety
from tests.tiny_base import make_tiny_base

HOME = load_site("home")
CONTRACT = contract_of(HOME, load_template("chatml"))
NAMES = {tool.name for tool in CONTRACT.tools}


def calls_of(rows: list[Row]) -> set[str]:
    return {call.name for row in rows for message in row.messages for call in message.calls}


def test_nothing_changes_without_variety() -> None:
    assert list(generate_rows(HOME, 120, 1, Variety())) == list(generate_rows(HOME, 120, 1))


def test_renamed_rows_call_the_tools_that_their_system_text_declares() -> None:
    rows = list(generate_rows(HOME, 200, 1, Variety(renamed=1.0)))
    assert all(row.is_varied for row in rows) and not calls_of(rows) & NAMES
    for row in rows:
        lines = [line.split("(")[0] for line in row.messages[0].text.split("\n") if "(" in line]
        declared = {name.strip() for line in lines for name in line.split(",")}
        assert calls_of([row]) <= declared
        for message in row.messages:
            assert all(call.name in message.thought for call in message.calls[:1])


def test_distractors_bring_tools_and_devices_that_no_name_of_the_site_means() -> None:
    rng = Random(2)
    for _ in range(40):
        site = Variety(distractors=1.0).vary(HOME, rng)
        new = {name: device for name, device in site.devices.items() if name not in HOME.devices}
        taken = {name for device in HOME.devices.values() for name in (device.title, *device.aliases)}
        assert not taken & {name for device in new.values() for name in (device.title, *device.aliases)}
        assert all(" " in alias for device in new.values() for alias in device.aliases)
        assert Site.model_validate(dict(site))  # no stranger stands in an area, or waits for a device, that is not here
        assert all(site.devices[name] == device for name, device in HOME.devices.items())
        assert contract_of(site, load_template("chatml"))  # none stands in an area of its old site


def test_distractors_are_none_of_the_sites_in_other_capitals() -> None:
    rng, light = Random(2), HOME.devices["kitchen_light"]
    aliases = tuple(f"{place} {noun}".upper() for place in load_phrasings().places for noun in ("lamp", "fan", "door"))
    site = HOME.model_copy(update={"devices": {"main": light.model_copy(update={"aliases": aliases})}})
    for _ in range(60):
        new = [device for name, device in Variety(distractors=1.0).vary(site, rng).devices.items() if name != "main"]
        assert {device.title for device in new}.isdisjoint(map(str.lower, aliases))


def test_shares_are_those_of_the_states_that_conversations_start_from() -> None:
    rows = list(generate_rows(HOME, 3000, 1, Variety(renamed=0.2, shuffled=0.2)))
    assert 0.2 < sum(row.is_varied for row in rows) / len(rows) < 0.55


def test_training_takes_varied_rows_and_no_others_whose_tools_differ(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_base(tmp_path / "base"))
    path = tmp_path / "rows.jsonl"
    rows = list(generate_rows(HOME, 100, 1, Variety(renamed=0.5, distractors=0.5, shuffled=0.5)))
    write_rows(path, rows)
    assert list(read_rows(path)) == rows
    assert len(encode_rows(path, CONTRACT, tokenizer, 8192).token_ids) == 100
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(', "varied": true', ""), encoding="utf-8")
    with pytest.raises(UsageError, match="the system text is not this site's"):
        encode_rows(path, CONTRACT, tokenizer, 8192)
    path.write_text(text.replace("Act only when asked", "Act  only when asked"), encoding="utf-8")
    with pytest.raises(UsageError, match="the system text is not this site's"):
        encode_rows(path, CONTRACT, tokenizer, 8192)


def test_cases_can_be_made_of_a_renamed_site() -> None:
    from devices.site.renaming import renamed

    site = renamed(HOME, Random(7))
    tools = {tool.name for tool in contract_of(site, load_template("chatml")).tools}
    cases = list(generate_cases(site, 60, 1))
    assert not tools & NAMES
    for case in cases:
        for command in case.commands:
            assert command.action in site.devices[command.device].actions
