"""ShareGPT: `{"conversations": [{"from": "human", "value": …}, …], "system", "tools"}`; Hermes' data is of that form.

Written in three ways: tags and a `tools` key; text with tools and calls in lines; as Hermes does, tools in the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from edge_agent.wire.function_text import with_lines
from edge_agent.wire.messages import Message
from finetune.data.formats.declared import with_tags
from finetune.data.formats.errors import Unreadable
from finetune.data.formats.reply_text import lined, tagged
from finetune.data.formats.results import Turn, in_order, split_results
from finetune.data.formats.schemas import read_tools
from finetune.data.formats.turns import make_row, read_turn, system_of
from finetune.data.rows import Row

NAMES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def read(plain: dict[str, Any]) -> Row:
    """Return the row of one conversation. Raises Unreadable."""
    turns: list[Turn] = [(Message("system", plain["system"]), [])] if plain.get("system") else []
    for turn in plain["conversations"]:
        if not isinstance(turn, dict):
            raise Unreadable("a turn is no object")
        text = turn.get("value")
        turns += read_turn(turn.get("from") or turn.get("role"), turn.get("content") if text is None else text, turn)
    return make_row(in_order(turns), read_tools(plain.get("tools")))


def write(row: Row) -> dict[str, Any]:
    """Return a row with tags, tools beside it."""
    turns = [_turn(message, tagged, "{}") for message in split_results(row.messages)]
    tools = {"tools": json.dumps(list(row.tools), ensure_ascii=False)} if row.tools else {}
    return {"conversations": turns} | tools


def write_text(row: Row) -> dict[str, Any]:
    """Return a row as text: tools and calls in lines. Raises Unwritable."""
    system, messages = system_of(row, with_lines)
    return {"conversations": _system(system) + [_turn(message, lined, "{}") for message in split_results(messages)]}


def write_hermes(row: Row) -> dict[str, Any]:
    """Return a row as Hermes' function calling data has it."""
    system, messages = system_of(row, with_tags)
    response = "<tool_response>\n{}\n</tool_response>"
    return {
        "conversations": _system(system) + [_turn(message, tagged, response) for message in split_results(messages)]
    }


def _system(text: str) -> list[dict[str, Any]]:
    return [{"from": "system", "value": text}] if text else []


def _turn(message: Message, reply: Callable[[Message], str], response: str) -> dict[str, Any]:
    text = reply(message) if message.role == "assistant" else message.text
    value = response.replace("{}", text) if message.role == "tool" else text
    return {"from": NAMES[message.role], "value": value} | ({} if message.is_trained else {"loss": False})
