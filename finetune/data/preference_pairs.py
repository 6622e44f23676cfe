"""Preference pairs: where a model went wrong in practice, what it said and what it should have said.

Practice is on the training side of the split. What the held-out cases show is never trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.json_lines import read_json_lines
from devices.site.site import Site
from edge_agent.evaluation.models.grading import grade
from edge_agent.evaluation.models.model import find_model
from edge_agent.evaluation.models.placement import Placement
from edge_agent.evaluation.scoring import score_case
from edge_agent.wire.messages import Message, body_of, message_from_dict, message_to_dict
from finetune.data.encoded_rows import EncodedRows, RowEncoder
from finetune.data.generator import generate_practice
from finetune.data.rows import IGNORED, prompt_length


@dataclass(frozen=True)
class Pair:
    """A conversation up to a reply, the reply to prefer, and the text that the model said instead."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: str

    def to_json(self) -> str:
        """Return the pair as one line of JSON."""
        prompt = [message_to_dict(message) for message in self.prompt]
        plain = {"prompt": prompt, "chosen": message_to_dict(self.chosen), "rejected": self.rejected}
        return json.dumps(plain, ensure_ascii=False)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Pair:
        """Return the pair of such JSON. Raises ValueError, KeyError or TypeError if it is none."""
        prompt = tuple(message_from_dict(message) for message in plain["prompt"])
        chosen, rejected = message_from_dict(plain["chosen"]), plain["rejected"]
        if chosen.role != "assistant" or not isinstance(rejected, str) or body_of(chosen) == rejected:
            raise ValueError("a pair needs an assistant's turn to prefer, and another text")
        return cls(prompt, chosen, rejected)


def find_pairs(model: str, site: Site, count: int, seed: int, placement: Placement) -> Iterator[Pair]:
    """Yield a pair for every practice case that a model fails by its first reply, without the grammar's help.

    Args:
        model: a run, a Hugging Face folder or a GGUF file, trained for the site.
        site: whose cases it practises.
        count: cases, not pairs.
        seed: of the cases.
        placement: where the model runs.

    Raises:
        UsageError, ContractChanged: it is no model, or none for this site.
    """
    practice = list(generate_practice(site, count, seed))
    found = find_model(model, site)
    (run,) = grade([found], site, [case for case, _ in practice], placement, latency_cases=0)
    for outcome, (_, messages) in zip(run.evaluation.free, practice, strict=True):
        prompt = tuple(takewhile(lambda message: message.role != "assistant", messages))
        chosen, completions = messages[len(prompt)], outcome.result.completions
        if score_case(outcome).problems and completions and completions[0].text != body_of(chosen):
            yield Pair(prompt, chosen, completions[0].text)


def read_pairs(path: Path) -> Iterator[tuple[str, Pair]]:
    """Yield where each pair of a JSONL file stands, and the pair.

    Raises:
        UsageError: the file cannot be read, or a line is no pair; the message names file and line.
    """
    return read_json_lines(path, Pair.from_dict, "pair", "edgewright data pairs MODEL --out FILE makes them")


def both_replies(pairs: list[dict[str, list[int]]]) -> EncodedRows:
    """Return of each encoded pair two rows: the prompt with the preferred reply, and with the other one."""
    replies = [(pair["prompt_ids"], pair[side]) for pair in pairs for side in ("chosen_ids", "rejected_ids")]
    return EncodedRows.of((prompt + reply, [IGNORED] * len(prompt) + reply) for prompt, reply in replies)


def encode_pairs(path: Path, system_text: str, encoder: RowEncoder) -> tuple[list[dict[str, list[int]]], EncodedRows]:
    """Return pairs as trl's DPO trainer takes them, and the preferred conversations as rows, for the counts.

    Raises:
        UsageError: a pair's system text is not the contract's, it cannot be encoded, or there is none that fits.
    """
    pairs: list[dict[str, list[int]]] = []
    rows = []
    for where, pair in read_pairs(path):
        if not pair.prompt or pair.prompt[0] != Message("system", system_text):
            raise UsageError(f"{where}: the system text is not this site's", hint="make the pairs again for it")
        if (row := encoder.encode(where, (*pair.prompt, pair.chosen))) is None:
            continue
        ids, labels = row
        rejected = encoder.tokenizer(pair.rejected + encoder.template.end_of_turn, add_special_tokens=False)
        chosen = [label for label in labels if label != IGNORED]  # the only trained turn
        prompt = ids[: prompt_length(labels)]
        pairs.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected["input_ids"]})
        rows.append(row)
    if not pairs:
        raise UsageError(f"{path}: no pair to train on")
    return pairs, EncodedRows.of(rows)
