"""Turns of chat formats, each a role and a text: roles are mapped, replies parsed, results split and joined."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from edge_agent.wire.messages import Message, Role
from finetune.data.formats.declared import take_tools, with_lines
from finetune.data.formats.errors import Unreadable
from finetune.data.formats.reply_text import parse_reply_text
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
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "ipython": "tool",
}
_RESPONSE = re.compile(r"<tool_response>\n?(.*?)\n?</tool_response>", re.DOTALL)


def role_of(name: object) -> Role:
    """Return the role that a format's name stands for. Raises Unreadable: unknown names are never passed through."""
    if not isinstance(name, str) or name.lower() not in ROLES:
        raise Unreadable(f"the role {name!r} is unknown")
    return ROLES[name.lower()]


def make_row(turns: Iterable[Message], tools: Sequence[Tool] = ()) -> Row:
    """Return the row of turns; tools that its system text declares are taken out of it.

    Raises:
        Unreadable: there is no reply, a system turn is not the first, or two users' turns follow each other.
    """
    messages = _joined_results(list(turns))
    if messages and messages[0].role == "system":
        text, declared = take_tools(messages[0].text)
        tools = declared or tools
        messages = ([Message("system", text)] if text else []) + messages[1:]
    before = ""
    for message in messages:
        if message.role == "system" and message is not messages[0]:
            raise Unreadable("a system turn that is not the first")
        if message.role == before == "user":
            raise Unreadable("two users' turns, one after the other")
        if message.role == "assistant" and not (message.text or message.calls):
            raise Unreadable("a reply with neither text nor calls")
        before = message.role
    if not any(message.role == "assistant" for message in messages):
        raise Unreadable("there is no reply in it")
    return Row((), tuple(messages), tuple(tools))


def read_turn(role: object, text: object) -> Message:
    """Return a turn whose text may hold tags. Raises Unreadable."""
    if not isinstance(text, str):
        raise Unreadable(f"a turn's text is {type(text).__name__}, not a string")
    mapped = role_of(role)
    if mapped == "assistant":
        return parse_reply_text(text)
    if mapped == "tool" and (found := _RESPONSE.findall(text)):
        text = "\n".join(found)
    return Message(mapped, text)


def _joined_results(messages: list[Message]) -> list[Message]:
    """Return messages with results that follow each other in one turn, a line each, where each is one line."""
    joined: list[Message] = []
    for message in messages:
        is_line = message.role == "tool" and "\n" not in message.text
        if is_line and len(joined) > 1 and joined[-1].role == "tool":
            calls = next((one.calls for one in reversed(joined) if one.role == "assistant"), ())
            if joined[-1].text.count("\n") + 1 < len(calls):
                joined[-1] = Message("tool", f"{joined[-1].text}\n{message.text}")
                continue
        joined.append(message)
    return joined


def split_results(messages: Sequence[Message]) -> list[Message]:
    """Return messages with one tool turn for each call, where a turn holds a line for each."""
    split: list[Message] = []
    calls = 0
    for message in messages:
        lines = message.text.split("\n") if message.role == "tool" else []
        if len(lines) == calls > 1:
            split += [Message("tool", line) for line in lines]
        else:
            split.append(message)
        if message.role == "assistant":
            calls = len(message.calls)
    return split


def declared_messages(row: Row) -> list[Message]:
    """Return a row's turns with its tools declared in the system text, as they are trained."""
    text, messages = system_of(row, with_lines)
    return ([Message("system", text)] if text else []) + messages


def system_of(row: Row, declare: Callable[[str, Sequence[Tool]], str]) -> tuple[str, list[Message]]:
    """Return a row's system text with its tools declared in it, and the turns after it."""
    messages = list(row.messages)
    text = messages.pop(0).text if messages and messages[0].role == "system" else ""
    return declare(text, row.tools), messages
