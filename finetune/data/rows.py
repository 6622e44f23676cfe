"""Conversations as JSON lines, and as token ids with labels. One row holds one conversation of many turns."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from devices.durable import aside_of, finish
from devices.errors import UsageError
from devices.json_lines import read_json_lines
from edge_agent.wire.chat_template import ChatTemplate, Segment
from edge_agent.wire.messages import Message, message_to_dict, messages_of

IGNORED = -100  # PyTorch cross_entropy, default of ignore_index


@dataclass(frozen=True)
class Row:
    """A conversation.

    Attributes:
        kinds: what each exchange practises, where it was made here.
        messages: its turns.
        tools: what it declares beside its system text, as OpenAI's API has it; rows made here have tools in the text.
        is_varied: whether its tools are others than its site's, for practice in reading them.
    """

    kinds: tuple[str, ...]
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    is_varied: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON has it."""
        plain = {"kinds": list(self.kinds), "messages": [message_to_dict(message) for message in self.messages]}
        return (
            plain | ({"tools": list(self.tools)} if self.tools else {}) | ({"varied": True} if self.is_varied else {})
        )

    def to_json(self) -> str:
        """Return the row as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Row:
        """Return the row of such JSON. Raises ValueError, KeyError or TypeError if it is none."""
        if not isinstance(plain, dict):
            raise ValueError(f"{type(plain).__name__}, not an object")
        kinds, messages = tuple(plain["kinds"]), tuple(messages_of(plain))
        if not messages:
            raise ValueError("no turns")
        return cls(kinds, messages, tuple(plain.get("tools") or ()), bool(plain.get("varied")))


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSONL file.

    Raises:
        UsageError: the file cannot be read, or a line is no row; the message names file and line.
    """
    hint = 'a line is {"kinds": [...], "messages": [{"role": ..., "text": ...}]}: `edgewright data convert` writes such'
    for _, row in read_json_lines(path, Row.from_dict, "conversation", hint):
        yield row


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as JSONL, whole or not at all; return how many."""
    return write_lines(path, (row.to_json() for row in rows))


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines to a file, whole or not at all; return how many."""
    aside, count = aside_of(path), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
                count += 1
        finish(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return count


def prompt_length(labels: Sequence[int]) -> int:
    """Return how many tokens stand before the first trained one; there must be one."""
    return next(index for index, label in enumerate(labels) if label != IGNORED)


def encode(messages: Iterable[Message], template: ChatTemplate, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return token ids and labels of a conversation, as `encode_segments`; replies are trained if they are to be."""
    return encode_segments(template.segments(list(messages)), template.name, tokenizer)


def encode_segments(segments: Sequence[Segment], template: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return token ids and labels of a rendered conversation: labels hide with IGNORED what is not trained.

    Args:
        segments: the conversation, from the system turn on.
        template: the name of the template that rendered it.
        tokenizer: a Hugging Face tokenizer; it must not add special tokens by itself.

    Returns:
        Two lists of the same length.

    Raises:
        UsageError: a token stands across the start or the end of a reply: running would not see the same tokens.
    """
    text = "".join(segment.text for segment in segments)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    token_ids: list[int] = encoded["input_ids"]
    ends = list(accumulate(len(segment.text) for segment in segments))
    labels: list[int] = []
    for token, (start, end) in zip(token_ids, encoded["offset_mapping"], strict=True):
        number = bisect_right(ends, start)
        if end > ends[number]:  # Phi-3's end of turn swallows the line end after it, which belongs to no turn
            content = tokenizer.convert_ids_to_tokens(token)
            if (place := text.find(content, start, end)) >= 0:
                start, end = place, place + len(content)
                number = bisect_right(ends, start)
        if end > ends[number]:
            raise UsageError(
                f"template {template}: the token {text[start:end]!r} of this base stands across the end of a turn",
                hint="choose the template of the base's own family",
            )
        labels.append(token if segments[number].is_trained else IGNORED)
    return token_ids, labels
