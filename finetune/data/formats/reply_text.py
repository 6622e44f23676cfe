"""Replies that are text: thought, calls and answer, in the ways in which data sets write them.

Tags: `<think>…</think>` and `<tool_call>{"name", "arguments"}</tool_call>`, ours and Hermes'. Lines: `thought`, then
its text, then `call: name(argument=value)` or `answer: …`. Everything else is an answer.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from devices.site.tools import ToolCall
from edge_agent.wire.markers import CALL, END_CALL, END_THINK, THINK
from edge_agent.wire.messages import Message
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.schemas import literal

_CALL_TAG = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_LINES = re.compile(r"thought:?[ \n](?P<thought>.*?)\n(?P<rest>(?:call|answer):.*)", re.DOTALL)


class Spelled(float):
    """A float that is written as it was: 50.00."""

    def __new__(cls, text: str) -> Spelled:  # noqa: D102
        return super().__new__(cls, text)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def parse_reply_text(text: str) -> Message:
    """Return an assistant's turn. Text beside calls becomes the thought, as a reply has either calls or an answer.

    Raises:
        Unreadable: a call cannot be read.
    """
    if (found := _LINES.fullmatch(text.strip())) or text.startswith("call:"):
        thought, rest = (found["thought"].strip(), found["rest"]) if found else ("", text.strip())
        if rest.startswith("answer:"):
            return Message("assistant", rest.removeprefix("answer:").strip(), thought)
        lines = [part.strip() for part in re.split(r"(?:^|\n)call:", rest) if part.strip()]
        return Message("assistant", "", thought, tuple(parse_call(line) for line in lines))
    thought, rest = split_thought(text)
    calls = tuple(_of_json(body) for body in _CALL_TAG.findall(rest))
    beside = _CALL_TAG.sub("", rest).strip()
    if CALL in beside or END_CALL in beside:
        raise Unreadable("a call that does not end")
    if not calls:
        return Message("assistant", text if rest == text else beside, thought)
    return Message("assistant", "", joined(thought, beside), calls)


def joined(*parts: str) -> str:
    """Return the parts that say something, on lines of their own."""
    return "\n".join(part for part in parts if part)


def split_thought(text: str) -> tuple[str, str]:
    """Return the thought between tags with which a text begins, and the rest. Raises Unreadable if it does not end."""
    if not text.lstrip().startswith(THINK):
        return "", text
    if END_THINK not in text:
        raise Unreadable("a thought that does not end")
    thought, rest = text.lstrip().removeprefix(THINK).split(END_THINK, 1)
    return thought.strip(), rest


def tagged(message: Message) -> str:
    """Return a reply with tags, as Hermes writes calls."""
    thought = f"{THINK}\n{message.thought}\n{END_THINK}\n" if message.thought else ""
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
    if not message.thought:
        if message.text.startswith(("thought", "call:")):
            raise Unwritable("the answer would read as a thought or a call")
        return "\n".join(calls) or message.text
    if re.search(r"^(call|answer):", message.thought, re.MULTILINE):
        raise Unwritable("the thought has a line that would read as a call or an answer")
    return f"thought\n{message.thought}\n" + ("\n".join(calls) or f"answer: {message.text}")


def parse_call(text: str) -> ToolCall:
    """Return the call that `refund(id="TXN9982", amount=50.00)` stands for.

    Raises:
        Unreadable: not a call, or an argument is unnamed or no constant.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise Unreadable(f"not a call: {text.strip()[:80]!r}") from error
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute) or node.args:
        raise Unreadable(f"not a call with named arguments: {text.strip()[:80]!r}")
    arguments = {str(word.arg): _value(word.value, text.strip()) for word in node.keywords}
    return ToolCall(ast.unparse(node.func), arguments)


def _value(node: ast.expr, source: str) -> Any:
    if isinstance(node, ast.Name) and node.id in {"true", "false", "null"}:
        return {"true": True, "false": False, "null": None}[node.id]
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise Unreadable(f"an argument is no constant: {ast.unparse(node)[:80]}") from error
    written = ast.get_source_segment(source, node)
    return Spelled(written) if isinstance(value, float) and written else value


def _of_json(text: str) -> ToolCall:
    try:
        plain = json.loads(text)
    except ValueError:
        try:
            plain = ast.literal_eval(text.strip())  # Hermes' early data has Python's quotes
        except (ValueError, SyntaxError) as error:
            raise Unreadable(f"a call is not JSON: {text.strip()[:80]!r}") from error
    return call_of(plain)


def call_of(plain: Any) -> ToolCall:
    """Return the call of `{"name", "arguments"}`, whose arguments may be JSON in a string. Raises Unreadable."""
    if not isinstance(plain, dict) or not isinstance(plain.get("name"), str):
        raise Unreadable(f"a call without a name: {json.dumps(plain)[:80]}")
    arguments = plain.get("arguments", plain.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise Unreadable(f"the arguments of {plain['name']} are not JSON: {arguments[:80]!r}") from error
    if not isinstance(arguments, dict):
        raise Unreadable(f"the arguments of {plain['name']} are no object")
    return ToolCall(plain["name"], arguments)
