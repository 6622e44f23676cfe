"""Copies of own conversations in which the tools are others, so that a model reads them and does not remember them.

Does not guard against: a system text that speaks of a tool which a copy has not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from devices.site.site import Site
from devices.yaml_file import plain_values, read_yaml
from edge_agent.wire.function_text import with_lines
from edge_agent.wire.messages import Message
from edge_agent.wire.renamed_functions import with_other_names
from finetune.data.rows import Row
from finetune.data.toolsets.rows import OwnRow, Tools

DISTRACTORS = (2, 4)
CANNOT = Message("assistant", "I have no tool for that.", "no tool here does that.")


def varied_rows(rows: Sequence[OwnRow], toolset: Site, shares: Mapping[str, float], seed: int) -> list[OwnRow]:
    """Return copies of conversations with the toolset's own system text, the same for the same rows and seed.

    Args:
        rows: those that are trained.
        toolset: theirs.
        shares: of each kind of copy (MAKERS), how many for each such row.
        seed: decides all.
    """
    own = [one for one in rows if one.is_own]
    found = []
    for kind, make in MAKERS.items():
        rng = Random(f"{kind}-{seed}")
        usable = [one for one in own if kind != "irrelevance" or _calls_first(one)]
        chosen = rng.sample(usable, min(round(shares.get(kind, 0) * len(own)), len(usable)))
        found += [replace(make(one, toolset, rng), where=f"{one.where}, {kind}", is_own=False) for one in chosen]
    return found


def _renamed(one: OwnRow, toolset: Site, rng: Random) -> OwnRow:
    messages, schemas = with_other_names(one.row.messages, toolset, rng)
    return replace(one, row=_with(one.row, messages), tools=schemas)


def _with_distractors(one: OwnRow, toolset: Site, rng: Random) -> OwnRow:
    tools = [*_declared(toolset), *rng.sample(_strangers(toolset), rng.randint(*DISTRACTORS))]
    rng.shuffle(tools)
    return _declaring(one, toolset, tools)


def _shuffled(one: OwnRow, toolset: Site, rng: Random) -> OwnRow:
    tools = _declared(toolset)
    rng.shuffle(tools)
    return _declaring(one, toolset, tools)


def _without_its_tool(one: OwnRow, toolset: Site, rng: Random) -> OwnRow:
    """Return the start of a conversation without the tools that it calls, and an answer that says so."""
    tools = [tool for tool in _declared(toolset) if tool["function"]["name"] not in one.called]
    tools += rng.sample(_strangers(toolset), rng.randint(*DISTRACTORS))
    rng.shuffle(tools)
    start = replace(one, row=_with(one.row, (*one.row.messages[:2], CANNOT)))
    return _declaring(start, toolset, tools)


MAKERS: dict[str, Callable[[OwnRow, Site, Random], OwnRow]] = {
    "renamed": _renamed,
    "distractors": _with_distractors,
    "shuffled": _shuffled,
    "irrelevance": _without_its_tool,
}


def _calls_first(one: OwnRow) -> bool:
    messages = one.row.messages
    return len(messages) > 2 and messages[1].role == "user" and bool(messages[2].calls)


def _declaring(one: OwnRow, toolset: Site, tools: list[dict[str, Any]]) -> OwnRow:
    system = Message("system", with_lines(toolset.system.strip(), tools))
    declared: Tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    return replace(one, row=_with(one.row, (system, *one.row.messages[1:])), tools=declared)


def _with(row: Row, messages: tuple[Message, ...]) -> Row:
    return replace(row, messages=messages, is_varied=True)


def _declared(toolset: Site) -> list[dict[str, Any]]:
    return [function.openai(name) for name, function in toolset.functions.items()]


def _strangers(toolset: Site) -> list[dict[str, Any]]:
    return [tool for tool in _all_strangers() if tool["function"]["name"] not in toolset.functions]


@cache
def _all_strangers() -> tuple[dict[str, Any], ...]:
    plain = plain_values(read_yaml(Path(__file__).with_name("distractors.yaml")).root)
    found = []
    for name, one in plain.items():
        properties = {key: {"type": kind} for key, kind in one["parameters"].items()}
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        function = {"name": name, "description": one["description"], "parameters": schema}
        found.append({"type": "function", "function": function})
    return tuple(found)
