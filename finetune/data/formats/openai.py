"""OpenAI's messages with tools and tool_calls, and TRL's prompt and completion, which are made of them.

A thought is `reasoning_content`, as templates of reasoning models have it, or in tags in the content. Results are put
into the order of their calls, by id; ids of calls are made anew: call_1, call_2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edge_agent.wire.markers import CALL
from edge_agent.wire.messages import Message
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.reply_text import call_of, joined, parse_reply_text, split_thought
from finetune.data.formats.schemas import read_tools
from finetune.data.formats.turns import make_row, role_of, split_results
from finetune.data.rows import Row


def read(plain: dict[str, Any]) -> Row:
    """Return the row of `{"messages", "tools"}`. Raises Unreadable."""
    return make_row(_read_messages(plain["messages"]), read_tools(plain.get("tools") or plain.get("functions")))


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
    """Yield the turns, with results in the order of their calls."""
    ids: list[Any] = []
    results: list[tuple[Any, Message]] = []
    for one in plain:
        message = _read_message(one)
        if message.role == "tool":
            results.append((one.get("tool_call_id"), message))
            continue
        yield from _ordered(results, ids)
        yield message
        results = []
        if message.role == "assistant":
            ids = [call.get("id") for call in one.get("tool_calls") or []]
    yield from _ordered(results, ids)


def _ordered(results: Sequence[tuple[Any, Message]], ids: Sequence[Any]) -> list[Message]:
    """Return results in the order of the calls with these ids; without ids as they came. Raises Unreadable."""
    given = [number for number, _ in results if number]
    if not given:
        return [message for _, message in results]
    for number in given:
        if number not in ids:
            raise Unreadable(f"a result of {number!r}, and there is no such call before it")
        if given.count(number) > 1 or ids.count(number) > 1:
            raise Unreadable(f"two calls or results have the id {number!r}")
    if len(given) < len(results):
        raise Unreadable("results with and without tool_call_id")
    if missing := [number for number in ids if number not in given]:
        raise Unreadable(f"the call {missing[0]!r} has no result, and others have")
    return [message for number in ids for given_number, message in results if given_number == number]


def _read_message(plain: Any) -> Message:
    if not isinstance(plain, dict):
        raise Unreadable("a message is no object")
    role, text = role_of(plain.get("role")), _content(plain.get("content"))
    if role != "assistant":
        return Message(role, text)
    given = [*(plain.get("tool_calls") or []), *([plain["function_call"]] if plain.get("function_call") else [])]
    if any(not isinstance(call, dict) for call in given):
        raise Unreadable("a call is no object")
    if given:
        thought, beside = split_thought(text)
        if CALL in beside:
            raise Unreadable("calls in its text and in tool_calls")
        calls = tuple(call_of(call.get("function", call)) for call in given)
        said = Message("assistant", "", joined(thought, beside.strip()), calls)
    else:
        said = parse_reply_text(text)
    thought = str(plain.get("reasoning_content") or plain.get("thinking") or "")
    if thought.strip() == said.thought:  # some write it twice, in tags too
        return said
    return Message("assistant", said.text, joined(thought, said.thought), said.calls)


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
