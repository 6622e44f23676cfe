"""Rows ready to train on: checked against the contract, encoded, and counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from edge_agent.wire import Contract, body_of
from finetune.rows import IGNORED, encode, read_rows


@dataclass(frozen=True)
class EncodedRows:
    """Token ids and labels per row (IGNORED hides a token from the loss), and how many rows were too long."""

    token_ids: tuple[list[int], ...]
    labels: tuple[list[int], ...]
    dropped: int

    @property
    def tokens(self) -> int:
        """Tokens in all rows, prompts included."""
        return sum(len(row) for row in self.token_ids)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss sees."""
        return sum(label != IGNORED for row in self.labels for label in row)

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


def encode_rows(path: Path, contract: Contract, tokenizer: Any, max_tokens: int) -> EncodedRows:
    """Return a JSONL file's rows, encoded. Rows over `max_tokens` are dropped whole and counted, never cut.

    Raises:
        UsageError: a row's system text is not the contract's, a row trains nothing or no end of turn, the end-of-turn
            token is no single token, a text was rendered already, or no row is left; the message has file and line.
    """
    end_of_turn = end_of_turn_id(contract, tokenizer)
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special = re.compile("|".join(map(re.escape, sorted(tokens | {contract.template.end_of_turn}))))
    bos = tokenizer.bos_token_id
    token_ids: list[list[int]] = []
    labels: list[list[int]] = []
    dropped = 0
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path}:{number}"
        system = row.messages[0].text if row.messages and row.messages[0].role == "system" else None
        if system != contract.system_text:
            raise UsageError(
                f"{where}: the system text is not this site's{difference(contract.system_text, system)}",
                hint="the site changed or is another one: make the conversations again for it",
            )
        for message in row.messages:
            if found := special.search(body_of(message)):
                raise UsageError(
                    f"{where}: a {message.role} text has the special token {found.group()}",
                    hint="give conversations as turns: text that a template has rendered would be rendered twice",
                )
        ids, row_labels = encode(row.messages, contract.template, tokenizer)
        if ids[:2] == [bos, bos]:
            raise UsageError(
                f"{where}: template {contract.template.name} begins the text with {tokenizer.bos_token} twice"
            )
        turns = sum(message.role == "assistant" for message in row.messages)
        if not turns or all(label == IGNORED for label in row_labels):
            raise UsageError(f"{where}: nothing is trained: the row has no assistant turn")
        if (ends := row_labels.count(end_of_turn)) != turns:
            raise UsageError(f"{where}: {turns} assistant turns, but {ends} trained end-of-turn tokens")
        if len(ids) > max_tokens:
            dropped += 1
            continue
        token_ids.append(ids)
        labels.append(row_labels)
    if not token_ids:
        reason = f"all {dropped} rows are over training.max_tokens ({max_tokens})" if dropped else "it is empty"
        raise UsageError(f"{path}: no row to train on: {reason}")
    return EncodedRows(tuple(token_ids), tuple(labels), dropped)


def spans(token_ids: Sequence[int], labels: Sequence[int], tokenizer: Any) -> list[tuple[str, bool]]:
    """Return a row's text in stretches, and whether each is trained."""
    stretches: list[tuple[list[int], bool]] = []
    for token, label in zip(token_ids, labels, strict=True):
        if not stretches or stretches[-1][1] != (label != IGNORED):
            stretches.append(([], label != IGNORED))
        stretches[-1][0].append(token)
    return [(tokenizer.decode(ids), is_trained) for ids, is_trained in stretches]


def end_of_turn_id(contract: Contract, tokenizer: Any) -> int:
    """Return the token id of the template's end-of-turn token.

    Raises:
        UsageError: the tokenizer spells it in several tokens, so that it could never stop a reply.
    """
    ids = tokenizer.encode(contract.template.end_of_turn, add_special_tokens=False)
    if len(ids) != 1:
        raise UsageError(
            f"template {contract.template.name}: {contract.template.end_of_turn} is {len(ids)} tokens for this base",
            hint="choose the template of the base's own family",
        )
    return int(ids[0])


def difference(expected: str, actual: str | None) -> str:
    """Return where two system texts part, for an error message."""
    if actual is None:
        return ": the row does not start with a system turn"
    same = common_length(expected, actual)
    return f": at character {same} it has {actual[same : same + 20]!r} for {expected[same : same + 20]!r}"


def common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return how many leading items two sequences share."""
    short = min(len(first), len(second))
    return next((index for index in range(short) if first[index] != second[index]), short)
