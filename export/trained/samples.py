"""A run's sample conversations, rendered, with where each reply thinks, calls and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from devices.errors import UsageError
from devices.json_lines import read_json_lines
from edge_agent.engine.engine import common_length
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.markers import CALL, END_THINK
from edge_agent.wire.messages import Message, messages_of
from export.llama_cpp_file import LlamaFile

Part = Literal["thought", "call", "answer", "prompt"]
# How much is compared: the end of each text, where attention reaches furthest. 8 · 96 rows of Llama 3's 128,256
# log-probabilities are 400 MB, held once.
SCORED_TEXTS, SCORED_TOKENS, SCORED_POSITIONS = 8, 4096, 96


@dataclass(frozen=True)
class Sample:
    """A rendered conversation.

    Attributes:
        text: all of it.
        prompt: its text up to where the first reply begins.
        ends: where a part of a reply ends, in characters, with what it is; "prompt" is what stands between replies.
    """

    text: str
    prompt: str
    ends: tuple[tuple[int, Part], ...]


@dataclass(frozen=True)
class Scored:
    """Tokens, and after which of them the next is scored, with the part that this next one belongs to."""

    token_ids: list[int]
    positions: list[int]
    parts: list[Part]


def sample_of(template: ChatTemplate, messages: Sequence[Message]) -> Sample:
    """Return a conversation rendered; an end-of-turn token belongs to what it ends."""
    asked = list(takewhile(lambda message: message.role != "assistant", messages))
    ends: list[tuple[int, Part]] = []
    done = 0
    for segment in template.segments(messages):
        thought, marker, rest = segment.text.partition(END_THINK)
        if segment.is_trained and marker:
            ends.append((done + len(thought + marker), "thought"))
        what: Part = "prompt" if not segment.is_trained else "call" if rest.startswith(CALL) else "answer"
        done += len(segment.text)
        ends.append((done, what))
    prompt = template.render(asked, add_generation_prompt=True)
    return Sample(template.render(messages, add_generation_prompt=False), prompt, tuple(ends))


def scored_rows(model: LlamaFile, samples: Sequence[Sample]) -> list[Scored]:
    """Return what is scored of the first few samples: the last tokens of their replies."""
    rows = []
    for sample in samples[:SCORED_TEXTS]:
        ids = model.tokenize(sample.text)
        parts: list[Part] = []  # of each token; one that reaches across an end belongs to what follows
        for end, part in sample.ends:
            count = common_length(ids, model.tokenize(sample.text[:end])) if end < len(sample.text) else len(ids)
            parts += [part] * (count - len(parts))
        ids, parts = ids[:SCORED_TOKENS], parts[:SCORED_TOKENS]
        replies = [place for place in range(len(ids) - 1) if parts[place + 1] != "prompt"]
        positions = (replies or list(range(len(ids) - 1)))[-SCORED_POSITIONS:]
        rows.append(Scored(ids, positions, [parts[place + 1] for place in positions]))
    return rows


def read_samples(path: Path, template: ChatTemplate) -> list[Sample]:
    """Return the conversations of a run's sample.jsonl. Raises UsageError with file and line."""
    read = read_json_lines(path, messages_of, "conversation")
    samples = [sample_of(template, messages) for _, messages in read]
    if not samples:
        raise UsageError(f"{path} has no conversation to check the export on")
    return samples
