"""Alpaca: `{"instruction", "input", "output", "system", "history"}`: an instruction, what it is about, and a reply."""

from __future__ import annotations

from typing import Any

from edge_agent.wire.function_text import with_lines
from edge_agent.wire.messages import Message
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.reply_text import parse_reply_text, tagged
from finetune.data.formats.turns import make_row, system_of
from finetune.data.rows import Row

INPUT = "\n\n### Input:\n"  # as Alpaca's own prompt has it


def read(plain: dict[str, Any]) -> Row:
    """Return the row of one instruction, with the exchanges before it. Raises Unreadable."""
    for key in ("instruction", "output"):
        if not isinstance(plain[key], str):
            raise Unreadable(f"{key} is {type(plain[key]).__name__}, not a string")
    turns = [Message("system", plain["system"])] if plain.get("system") else []
    for pair in plain.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Unreadable("history is no list of pairs")
        turns += [Message("user", str(pair[0])), parse_reply_text(str(pair[1]))]
    about = str(plain.get("input") or "")
    turns.append(Message("user", plain["instruction"] + (INPUT + about if about else "")))
    return make_row([*turns, parse_reply_text(plain["output"])])


def write(row: Row) -> dict[str, Any]:
    """Return a row as an instruction and its output.

    Raises:
        Unwritable: it has results of calls, or turns that are no pairs.
    """
    system, messages = system_of(row, with_lines)
    roles = [message.role for message in messages]
    if "tool" in roles:
        raise Unwritable("Alpaca has no place for the results of calls")
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        raise Unwritable("Alpaca has pairs of instruction and output only")
    if not all(message.is_trained for message in messages):
        raise Unwritable("Alpaca has no mark for a reply that is not trained")
    texts = [tagged(message) if message.role == "assistant" else message.text for message in messages]
    instruction, _, about = texts[-2].partition(INPUT)
    plain: dict[str, Any] = {"instruction": instruction, "input": about, "output": texts[-1]}
    if system:
        plain["system"] = system
    if len(texts) > 2:
        plain["history"] = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    return plain
