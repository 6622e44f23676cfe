"""Turns of chat formats, each a role and a text: roles are mapped, replies parsed, turns made a row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edge_agent.wire.function_text import with_lines
from edge_agent.wire.messages import Message, Role
from finetune.data.formats.declared import take_tools
from finetune.data.formats.errors import Unreadable
from finetune.data.formats.nulls import without_null_arguments
from finetune.data.formats.reply_text import ids_in, joined, parse_reply_text, with_untagged_calls
from finetune.data.formats.results import Turn, joined_results
from finetune.data.formats.schemas import Tool
from finetune.data.rows import Row

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool_calls": "assistant",
    "tool": "tool",
    "tool_response": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "ipython": "tool",
    "environment": "tool",
}
CALLING = {"function_call", "tool_call", "tool_calls"}  # roles of turns that are nothing but calls
MARKS = ("weight", "loss", "train", "training", "train_on_turn")  # OpenAI's; ms-swift's; as axolotl's users call it
_RESPONSE = re.compile(r"<tool_response>\n?(.*?)\n?</tool_response>", re.DOTALL)


def role_of(name: object) -> Role:
    """Return the role that a format's name stands for. Raises Unreadable: unknown names are never passed through."""
    if not isinstance(name, str) or name.lower() not in ROLES:
        raise Unreadable(f"the role {name!r} is unknown")
    return ROLES[name.lower()]


def make_row(turns: Iterable[Message], tools: Sequence[Tool] = ()) -> Row:
    """Return the row of turns; tools that its system text declares are taken out of it.

    Raises:
        Unreadable: there is no reply to train, a system turn is not the first, or two users' turns follow each other.
    """
    messages = list(turns)
    if messages and messages[0].role == "system":
        text, declared = take_tools(messages[0].text)
        tools = declared or tools
        messages = ([Message("system", text)] if text else []) + messages[1:]
    names = {tool["function"]["name"] for tool in tools}
    messages = joined_results(_joined_calls(_with_untagged_calls(messages, names)))
    _require_conversation(messages)
    return without_null_arguments(Row((), tuple(messages), tuple(tools)))


def _with_untagged_calls(messages: Sequence[Message], names: set[str]) -> list[Message]:
    """Return messages in which calls without tags are calls: those that a result follows, or only of declared tools."""
    told: list[Message] = []
    has_result = False
    for message in reversed(messages):
        if message.role != "assistant":
            has_result = message.role == "tool"
        elif not message.calls:
            try:
                calling = with_untagged_calls(message)
            except Unreadable:
                if has_result:
                    raise
                calling = message
            is_all = calling.thought == message.thought and {call.name for call in calling.calls} <= names
            message = calling if has_result or is_all else message
        told.append(message)
    return told[::-1]


def _joined_calls(messages: Iterable[Message]) -> list[Message]:
    """Return messages with replies that call, and what the assistant says just before, in one turn."""
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else message
        if message.calls and turns and last.role == "assistant" and last.is_trained == message.is_trained:
            thought = joined(last.thought, last.text, message.thought)
            turns[-1] = replace(message, thought=thought, calls=last.calls + message.calls)
        else:
            turns.append(message)
    return turns


def _require_conversation(messages: Sequence[Message]) -> None:
    before = ""
    for message in messages:
        if message.role == "system" and message is not messages[0]:
            raise Unreadable("a system turn that is not the first")
        if message.role == before == "user":
            raise Unreadable("two users' turns, one after the other")
        if message.role == "assistant" and not (message.text or message.calls):
            raise Unreadable("a reply with neither text nor calls" + (" after its thought" if message.thought else ""))
        before = message.role
    replies = [message for message in messages if message.role == "assistant"]
    if not any(reply.is_trained for reply in replies):
        raise Unreadable("all replies in it are marked as not to be trained" if replies else "there is no reply in it")


def read_turn(role: object, text: object, plain: Mapping[str, Any]) -> list[Turn]:
    """Return a turn whose text may hold tags, with the ids of its calls; of results with ids, a turn each.

    Args:
        role: as the format calls it.
        text: of the turn.
        plain: the turn, which may have an id or a mark.

    Raises:
        Unreadable: the role is unknown, or the text is none or has calls that cannot be read.
    """
    if not isinstance(text, str):
        raise Unreadable(f"a turn's text is {type(text).__name__}, not a string")
    mapped = role_of(role)
    if mapped == "assistant":
        reply = parse_reply_text(text)
        if str(role).lower() in CALLING and not (reply := with_untagged_calls(reply)).calls:
            raise Unreadable(f"a {role} without a call: {text[:80]!r}")
        ids = list(ids_in(text))
        return [(with_mark(reply, plain), ids if reply.calls or any(ids) else [])]
    if mapped != "tool":
        return [(Message(mapped, text), [])]
    texts = _RESPONSE.findall(text) or [text]
    results: list[Turn] = [(Message(mapped, one), (plain.get("tool_call_id"), _id_in(one))) for one in texts]
    return results if any(any(ids) for _, ids in results) else [(Message(mapped, "\n".join(texts)), (None, None))]


def _id_in(text: str) -> Any:
    """Return the tool_call_id in the JSON of a result; None if there is none."""
    try:
        plain = json.loads(text)
    except ValueError:
        return None
    return plain.get("tool_call_id") if isinstance(plain, dict) else None


def with_mark(reply: Message, plain: Mapping[str, Any]) -> Message:
    """Return an assistant's turn, not trained if its plain form has a mark that says so.

    Raises:
        Unreadable: a mark is neither 0 nor 1, or only parts of the turn are to be trained.
    """
    if plain.get("train_detail"):
        raise Unreadable("parts of a turn are marked (train_detail), and only whole turns can be left out")
    marks = {key: plain[key] for key in MARKS if plain.get(key) is not None}
    for key, value in marks.items():
        if value not in (0, 1):
            raise Unreadable(f"{key} is {value!r}: a turn is trained (1, true) or not (0, false)")
    return reply if all(marks.values()) else replace(reply, is_trained=False)


def declared_messages(row: Row) -> list[Message]:
    """Return a row's turns with its tools declared in the system text, as they are trained."""
    text, messages = system_of(row, with_lines)
    return ([Message("system", text)] if text else []) + messages


def system_of(row: Row, declare: Callable[[str, Sequence[Tool]], str]) -> tuple[str, list[Message]]:
    """Return a row's system text with its tools declared in it, and the turns after it."""
    messages = list(row.messages)
    text = messages.pop(0).text if messages and messages[0].role == "system" else ""
    return declare(text, row.tools), messages
