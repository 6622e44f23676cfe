"""OpenAI's messages with tools and tool_calls, and TRL's prompt and completion, which are made of them.

A thought is `reasoning_content`, as templates of reasoning models have it, or in tags in the content. Results are put
into the order of their calls, by id; ids of calls are made anew: call_1, call_2. Anthropic's messages are read too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import takewhile
from typing import Any

from edge_agent.wire.markers import CALL
from edge_agent.wire.messages import Message
from finetune.data.formats.blocks import without_blocks
from finetune.data.formats.calls import call_of
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.reply_text import is_plain, joined, parse_reply_text, split_thought, tagged, without_word
from finetune.data.formats.results import Turn, in_order, split_results
from finetune.data.formats.schemas import read_tools
from finetune.data.formats.turns import make_row, read_turn, role_of, with_mark
from finetune.data.rows import Row


def read(plain: dict[str, Any]) -> Row:
    """Return the row of `{"messages", "tools"}`, which may have `system` beside it. Raises Unreadable."""
    system = [{"role": "system", "content": plain["system"]}] if plain.get("system") else []
    messages = _read_messages([*system, *plain["messages"]])
    return make_row(messages, read_tools(plain.get("tools") or plain.get("functions")))


def write(row: Row) -> dict[str, Any]:
    """Return a row as `{"messages", "tools"}`."""
    return {"messages": _messages(row)} | ({"tools": list(row.tools)} if row.tools else {})


def read_prompt(plain: dict[str, Any]) -> Row:
    """Return the row of `{"prompt", "completion"}`, both text or both messages. Raises Unreadable."""
    prompt, completion = plain["prompt"], plain["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return make_row([Message("user", prompt), parse_reply_text(completion)], read_tools(plain.get("tools")))
    if not isinstance(prompt, list) or not isinstance(completion, list):
        raise Unreadable("prompt and completion must both be text, or both messages")
    return make_row(_read_messages([*prompt, *completion]), read_tools(plain.get("tools")))


def write_prompt(row: Row) -> dict[str, Any]:
    """Return a row as `{"prompt", "completion"}`: the completion is the last reply.

    Raises:
        Unwritable: it does not end with a reply.
    """
    if row.messages[-1].role != "assistant":
        raise Unwritable("it does not end with a reply")
    *prompt, completion = _messages(row)
    return {"prompt": prompt, "completion": [completion]} | ({"tools": list(row.tools)} if row.tools else {})


def _read_messages(plain: Iterable[Any]) -> Iterator[Message]:
    return in_order(turn for one in without_blocks(plain) for turn in _read_message(one))


def _read_message(plain: Any) -> list[Turn]:
    if not isinstance(plain, dict):
        raise Unreadable("a message is no object")
    role, text = plain.get("role"), _content(plain.get("content"))
    given = [*(plain.get("tool_calls") or []), *([plain["function_call"]] if plain.get("function_call") else [])]
    if any(not isinstance(call, dict) for call in given):
        raise Unreadable("a call is no object")
    if given and role_of(role) == "assistant":
        thought, beside = split_thought(text)
        if CALL in beside:
            raise Unreadable("calls in its text and in tool_calls")
        calls = tuple(map(call_of, given))
        reply = Message("assistant", "", joined(thought, without_word(beside.strip())), calls)
        turns: list[Turn] = [(with_mark(reply, plain), [call.get("id") for call in given])]
    else:
        turns = read_turn(role, text, plain)
    said, ids = turns[0]
    thought = str(plain.get("reasoning_content") or plain.get("thinking") or "")
    if said.role != "assistant" or thought.strip() in {"", said.thought}:  # some write it twice, in tags too
        return turns
    return [(replace(said, thought=joined(thought, said.thought)), ids)]


def _content(content: Any) -> str:
    if isinstance(content, list):
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in content):
            raise Unreadable("a message has a part that is no text")
        return "".join(str(part["text"]) for part in content)
    if content is not None and not isinstance(content, str):
        raise Unreadable(f"a message's content is {type(content).__name__}")
    return content or ""


def _messages(row: Row) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    waiting: list[str] = []
    number = 0
    messages = split_results(row.messages)
    for place, message in enumerate(messages):
        plain: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.role == "assistant" and message.text and not is_plain(message.text):
            plain["content"] = tagged(Message("assistant", message.text))
        if not message.is_trained:
            plain["weight"] = 0
        if message.thought:
            plain["reasoning_content"] = message.thought
        if message.calls:
            ids = [f"call_{number + index + 1}" for index in range(len(message.calls))]
            number += len(message.calls)
            plain["tool_calls"] = list(_calls(message, ids))
            results = list(takewhile(lambda one: one.role == "tool", messages[place + 1 :]))
            waiting = ids if len(results) == len(ids) else []  # else nobody knows whose they are
        if message.role == "tool" and waiting:
            plain["tool_call_id"] = waiting.pop(0)
        written.append(plain)
    return written


def _calls(message: Message, ids: Iterable[str]) -> Iterable[dict[str, Any]]:
    for call, number in zip(message.calls, ids, strict=True):
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        yield {"id": number, "type": "function", "function": {"name": call.name, "arguments": arguments}}
