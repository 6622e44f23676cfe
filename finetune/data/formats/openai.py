"""OpenAI's messages with tools and tool_calls, and TRL's prompt and completion, which are made of them.

A thought is `reasoning_content`, as templates of reasoning models have it. Ids of calls are made anew: call_1, call_2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from edge_agent.wire.messages import Message
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.reply_text import call_of, parse_reply_text
from finetune.data.formats.schemas import read_tools
from finetune.data.formats.turns import make_row, role_of, split_results
from finetune.data.rows import Row


def read(plain: dict[str, Any]) -> Row:
    """Return the row of `{"messages", "tools"}`. Raises Unreadable."""
    return make_row(map(_read_message, plain["messages"]), read_tools(plain.get("tools") or plain.get("functions")))


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
    return make_row(map(_read_message, [*prompt, *completion]), read_tools(plain.get("tools")))


def write_prompt(row: Row) -> dict[str, Any]:
    """Return a row as `{"prompt", "completion"}`: the completion is the last reply.

    Raises:
        Unwritable: it does not end with a reply.
    """
    if row.messages[-1].role != "assistant":
        raise Unwritable("it does not end with a reply")
    *prompt, completion = _messages(row)
    return {"prompt": prompt, "completion": [completion]} | ({"tools": list(row.tools)} if row.tools else {})


def _read_message(plain: Any) -> Message:
    if not isinstance(plain, dict):
        raise Unreadable("a message is no object")
    role, text = role_of(plain.get("role")), _content(plain.get("content"))
    if role != "assistant":
        return Message(role, text)
    thought = str(plain.get("reasoning_content") or plain.get("thinking") or "")
    calls = [call.get("function", call) for call in plain.get("tool_calls") or []]
    calls += [plain["function_call"]] if plain.get("function_call") else []
    if not calls and not thought:
        return parse_reply_text(text)
    beside = text.strip() if calls else ""
    thought = "\n".join(part for part in (thought, beside) if part)
    return Message("assistant", "" if calls else text, thought, tuple(call_of(call) for call in calls))


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
    for message in split_results(row.messages):
        plain: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.thought:
            plain["reasoning_content"] = message.thought
        if message.calls:
            waiting = [f"call_{number + index + 1}" for index in range(len(message.calls))]
            number += len(message.calls)
            plain["tool_calls"] = list(_calls(message, waiting))
        if message.role == "tool" and waiting:
            plain["tool_call_id"] = waiting.pop(0)
        written.append(plain)
    return written


def _calls(message: Message, ids: Iterable[str]) -> Iterable[dict[str, Any]]:
    for call, number in zip(message.calls, ids, strict=True):
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        yield {"id": number, "type": "function", "function": {"name": call.name, "arguments": arguments}}
