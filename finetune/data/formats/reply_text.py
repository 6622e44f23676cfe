"""Replies that are text: thought, calls and answer, in the ways in which data sets write them.

Tags: `<think>…</think>` (or thought, thinking) and `<tool_call>{"name", "arguments"}</tool_call>`, ours and Hermes'.
Lines: `thought`, then its text, then `call: name(argument=value)` or `answer: …`; without these the first line after
`thought` is the thought and the rest the answer. Everything else is an answer.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from devices.site.tools import ToolCall
from edge_agent.wire.function_text import literal
from edge_agent.wire.markers import CALL, END_CALL, END_THINK, THINK
from edge_agent.wire.messages import Message
from finetune.data.formats.calls import call_of, json_values, parse_call, untagged_calls
from finetune.data.formats.errors import Unreadable, Unwritable

_CALL_TAG = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_THOUGHT_TAG = re.compile(r"\s*<(think|thought|thinking)>")
_WORD = re.compile(r"\A(?i:thought)(?::|[ \t\r]*\n)")
_LINES = re.compile(
    r"(?:thought |(?i:thought)(?::|[ \t\r]*\n))(?P<thought>.*?)(?<=\n)(?P<rest>(?i:call|answer):.*)", re.DOTALL
)


def parse_reply_text(text: str) -> Message:
    """Return an assistant's turn. Text beside calls becomes the thought, as a reply has either calls or an answer.

    Raises:
        Unreadable: a call cannot be read.
    """
    if (found := _LINES.fullmatch(text.strip())) or text.startswith("call:"):
        thought, rest = (found["thought"].strip(), found["rest"]) if found else ("", text.strip())
        if rest.lower().startswith("answer:"):
            return Message("assistant", rest[len("answer:") :].strip(), thought)
        lines = [part.strip() for part in re.split(r"(?:^|\n)(?i:call):", rest) if part.strip()]
        return Message("assistant", "", thought, tuple(parse_call(line) for line in lines))
    thought, rest = split_thought(text)
    calls = tuple(_of_json(body) for body in _CALL_TAG.findall(rest))
    beside = _CALL_TAG.sub("", rest).strip()
    if CALL in beside or END_CALL in beside:
        raise Unreadable("a call that does not end")
    if calls:
        return Message("assistant", "", joined(thought, without_word(beside)), calls)
    if rest == text and _WORD.match(beside):
        thought, _, answer = without_word(beside).partition("\n")
        return Message("assistant", answer.strip(), thought.strip())
    return Message("assistant", text if rest == text else beside, thought)


def with_untagged_calls(message: Message) -> Message:
    """Return a reply whose text ends with calls without tags as a reply that calls; others as they are.

    Raises:
        Unreadable: what looks like calls cannot be read.
    """
    before, calls = untagged_calls(message.text)
    return replace(message, text="", thought=joined(message.thought, before), calls=calls) if calls else message


def ids_in(text: str) -> Iterator[Any]:
    """Yield the id of each call in a text, in tags or all of it; None where it has none."""
    for body in _CALL_TAG.findall(text) or [text]:
        try:
            values = json_values(body, "calls")
        except Unreadable:
            values = [None]
        yield from (value.get("id") if isinstance(value, dict) else None for value in values)


def joined(*parts: str) -> str:
    """Return the parts that say something, on lines of their own."""
    return "\n".join(part for part in parts if part)


def without_word(text: str) -> str:
    """Return text without the word `thought` that opens it."""
    return _WORD.sub("", text).strip()


def split_thought(text: str) -> tuple[str, str]:
    """Return the thought between tags with which a text begins, and the rest. Raises Unreadable if it does not end."""
    opened = _THOUGHT_TAG.match(text)
    if not opened:
        return "", text
    thought, end, rest = text[opened.end() :].partition(f"</{opened[1]}>")
    if not end:
        raise Unreadable("a thought that does not end")
    return thought.strip(), rest


def is_plain(text: str) -> bool:
    """Return whether a text is read as an answer and as nothing else."""
    try:
        return parse_reply_text(text) == Message("assistant", text)
    except Unreadable:
        return False


def tagged(message: Message) -> str:
    """Return a reply with tags, as Hermes writes calls; an empty thought keeps an answer from being read as another.

    Raises:
        Unwritable: the thought has the tag that would end it.
    """
    if END_THINK in message.thought:
        raise Unwritable(f"the thought has {END_THINK} in it")
    has_thought = message.thought or not (message.calls or is_plain(message.text))
    thought = f"{THINK}\n{message.thought}\n{END_THINK}\n" if has_thought else ""
    calls = [
        f"{CALL}\n{json.dumps({'name': call.name, 'arguments': call.arguments}, ensure_ascii=False)}\n{END_CALL}"
        for call in message.calls
    ]
    return thought + ("\n".join(calls) or message.text)


def lined(message: Message) -> str:
    """Return a reply in lines. Raises Unwritable if its thought has a line that would read as a call."""
    calls = [
        f"call: {call.name}({', '.join(f'{name}={literal(value)}' for name, value in call.arguments.items())})"
        for call in message.calls
    ]
    if not message.thought and (calls or is_plain(message.text)):
        return "\n".join(calls) or message.text
    if re.search(r"^(call|answer):", message.thought, re.MULTILINE | re.IGNORECASE):
        raise Unwritable("the thought has a line that would read as a call or an answer")
    return f"{joined('thought', message.thought)}\n" + ("\n".join(calls) or f"answer: {message.text}")


def _of_json(text: str) -> ToolCall:
    try:
        plain = json.loads(text)
    except ValueError:
        try:
            plain = ast.literal_eval(text.strip())  # Hermes' early data has Python's quotes
        except (ValueError, SyntaxError) as error:
            raise Unreadable(f"a call is not JSON: {text.strip()[:80]!r}") from error
    return call_of(plain)
