"""Rows ready to train on: checked against the contract, encoded, and counted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from edge_agent.engine.engine import common_length
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.contract import INTRODUCTION, Contract, introduction_in
from edge_agent.wire.function_text import TOOLS_HEADING
from edge_agent.wire.messages import Message, body_of
from finetune.data.rows import IGNORED, encode, read_rows


@dataclass(frozen=True)
class EncodedRows:
    """Token ids and labels per row (IGNORED hides a token from the loss), and how many rows were too long."""

    token_ids: tuple[list[int], ...]
    labels: tuple[list[int], ...]
    dropped: int

    @classmethod
    def of(cls, rows: Iterable[tuple[list[int], list[int]]], dropped: int = 0) -> EncodedRows:
        """Return rows of pairs of ids and labels."""
        pairs = list(rows)
        return cls(tuple(ids for ids, _ in pairs), tuple(labels for _, labels in pairs), dropped)

    @property
    def tokens(self) -> int:
        """Tokens in all rows, prompts included."""
        return sum(len(row) for row in self.token_ids)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss sees."""
        return sum(map(trained_count, self.labels))

    def split(self, held_out: int) -> tuple[EncodedRows, EncodedRows]:
        """Return the rows to train on and the last ones, which are held out.

        Raises:
            UsageError: none would be left to train on.
        """
        kept = len(self.token_ids) - held_out
        if kept < 1:
            raise UsageError(f"training.held_out_rows is {held_out}, and there are {len(self.token_ids)} rows")
        head = EncodedRows(self.token_ids[:kept], self.labels[:kept], self.dropped)
        return head, EncodedRows(self.token_ids[kept:], self.labels[kept:], 0)


class RowEncoder:
    """Encodes rows for a template and a tokenizer, and refuses those whose training would not be what it seems."""

    def __init__(self, template: ChatTemplate, tokenizer: Any, max_tokens: int) -> None:
        """Raises UsageError if the tokenizer spells the end of a turn in several tokens."""
        self.template, self.tokenizer, self.max_tokens = template, tokenizer, max_tokens
        self.over: list[int] = []  # lengths of the rows that were over it
        self._end_of_turn = end_of_turn_id(template, tokenizer)
        tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = re.compile("|".join(map(re.escape, sorted(tokens | {template.end_of_turn}))))

    def encode(self, where: str, messages: Sequence[Message]) -> tuple[list[int], list[int]] | None:
        """Return a row's token ids and labels; None if it is over `max_tokens`.

        Raises:
            UsageError: a text was rendered already, or nothing is trained, or not every end of a turn.
        """
        for message in messages:
            if found := self._special.search(body_of(message)):
                raise UsageError(
                    f"{where}: a {message.role} text has the special token {found.group()}",
                    hint="give conversations as turns: text that a template has rendered would be rendered twice",
                )
        ids, labels = encode(messages, self.template, self.tokenizer)
        bos = self.tokenizer.bos_token_id
        if ids[:2] == [bos, bos]:
            raise UsageError(
                f"{where}: template {self.template.name} begins the text with {self.tokenizer.bos_token} twice"
            )
        turns = sum(message.role == "assistant" and message.is_trained for message in messages)
        if not turns or all(label == IGNORED for label in labels):
            raise UsageError(f"{where}: nothing is trained: the row has no assistant turn that is to be")
        if (ends := labels.count(self._end_of_turn)) != turns:
            raise UsageError(f"{where}: {turns} assistant turns to train, but {ends} trained end-of-turn tokens")
        if len(ids) > self.max_tokens:
            self.over.append(len(ids))
            return None
        return ids, labels


def encode_rows(
    path: Path, contract: Contract, tokenizer: Any, max_tokens: int, *, any_site: bool = False
) -> EncodedRows:
    """Return a JSONL file's rows, encoded. Rows over `max_tokens` are dropped whole and counted, never cut.

    Rows of any site need only start with what all sites' system texts start with.

    Raises:
        UsageError: a row's system text is not the contract's, no row is left, or as RowEncoder; the message has file
            and line.
    """
    encoder = RowEncoder(contract.template, tokenizer, max_tokens)
    kept: list[tuple[list[int], list[int]]] = []
    number = 0
    for number, row in enumerate(read_rows(path), start=1):
        system = row.messages[0].text if row.messages and row.messages[0].role == "system" else None
        expected = contract.system_text
        if any_site and system is not None:
            expected, system = INTRODUCTION, introduction_in(system)
        elif row.is_varied and system is not None:  # its tools are others; all before them is the site's
            expected, system = (text.partition(TOOLS_HEADING)[0] for text in (expected, system))
        if system != expected:
            raise UsageError(
                f"{path}:{number}: the system text is not this site's{difference(expected, system)}",
                hint="the site changed or is another one: make the conversations again for it",
            )
        if encoded := encoder.encode(f"{path}:{number}", row.messages):
            kept.append(encoded)
    if not kept:
        reason = f"all {number} rows are over training.max_tokens ({max_tokens})" if number else "it is empty"
        needed = f"training.max_tokens={max(encoder.over)} takes all of them" if encoder.over else ""
        raise UsageError(f"{path}: no row to train on: {reason}", hint=needed)
    return EncodedRows.of(kept, number - len(kept))


def trained_count(labels: Sequence[int]) -> int:
    """Return how many tokens of a row the loss sees."""
    return sum(label != IGNORED for label in labels)


def spans(token_ids: Sequence[int], labels: Sequence[int], tokenizer: Any) -> list[tuple[str, bool]]:
    """Return a row's text in stretches, and whether each is trained."""
    stretches: list[tuple[list[int], bool]] = []
    for token, label in zip(token_ids, labels, strict=True):
        if not stretches or stretches[-1][1] != (label != IGNORED):
            stretches.append(([], label != IGNORED))
        stretches[-1][0].append(token)
    return [(tokenizer.decode(ids), is_trained) for ids, is_trained in stretches]


def end_of_turn_id(template: ChatTemplate, tokenizer: Any) -> int:
    """Return the token id of the template's end-of-turn token.

    Raises:
        UsageError: the tokenizer spells it in several tokens, so that it could never stop a reply.
    """
    ids = tokenizer.encode(template.end_of_turn, add_special_tokens=False)
    if len(ids) != 1:
        raise UsageError(
            f"template {template.name}: {template.end_of_turn} is {len(ids)} tokens for this base",
            hint="choose the template of the base's own family",
        )
    return int(ids[0])


def difference(expected: str, actual: str | None) -> str:
    """Return where two system texts part, for an error message."""
    if actual is None:
        return ": the row does not start with a system turn"
    same = common_length(expected, actual)
    return f": at character {same} it has {actual[same : same + 20]!r} for {expected[same : same + 20]!r}"
