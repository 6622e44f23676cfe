"""Conversations as JSON lines, and as token ids with labels. One row holds one conversation of many turns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.durable import aside_of, finish
from devices.errors import UsageError
from devices.tools import ToolCall
from edge_agent.wire import ChatTemplate, Message

IGNORED = -100  # PyTorch cross_entropy, default of ignore_index


@dataclass(frozen=True)
class Row:
    """A conversation; `kinds` names what each exchange practises."""

    kinds: tuple[str, ...]
    messages: tuple[Message, ...]

    def to_json(self) -> str:
        """Return the row as one line of JSON."""
        messages = [_message_to_dict(message) for message in self.messages]
        return json.dumps({"kinds": self.kinds, "messages": messages}, ensure_ascii=False)


def _message_to_dict(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "text": message.text}
    if message.role == "assistant":
        plain["thought"] = message.thought
    if message.calls:
        plain["calls"] = [{"name": call.name, "arguments": call.arguments} for call in message.calls]
    return plain


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSONL file.

    Raises:
        UsageError: the file cannot be read, or a line is no row; the message names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the conversations {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            plain = json.loads(line)
            yield Row(tuple(plain["kinds"]), tuple(_message_from_dict(message) for message in plain["messages"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}:{number}: not a conversation: {error!r}",
                hint='a line is {"kinds": [...], "messages": [{"role": ..., "text": ...}, ...]}',
            ) from error


def _message_from_dict(plain: dict[str, Any]) -> Message:
    if plain["role"] not in ("system", "user", "assistant", "tool"):
        raise ValueError(f"unknown role {plain['role']!r}")
    calls = tuple(ToolCall(call["name"], call["arguments"]) for call in plain.get("calls", []))
    return Message(plain["role"], plain["text"], plain.get("thought", ""), calls)


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as JSONL, whole or not at all; return how many."""
    aside, count = aside_of(path), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row.to_json() + "\n")
            count += 1
    finish(aside, path)
    return count


def encode(messages: Iterable[Message], template: ChatTemplate, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return token ids and labels of a conversation: labels hide with IGNORED what is not trained.

    Args:
        messages: the conversation, from the system turn on.
        template: renders it.
        tokenizer: a Hugging Face tokenizer; it must not add special tokens by itself.

    Returns:
        Two lists of the same length.
    """
    token_ids: list[int] = []
    labels: list[int] = []
    for segment in template.segments(list(messages)):
        ids = tokenizer.encode(segment.text, add_special_tokens=False)
        token_ids += ids
        labels += ids if segment.is_trained else [IGNORED] * len(ids)
    return token_ids, labels
