"""General instruction data: mixed into training, and measured before and after it, so that forgetting shows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random

from devices.errors import UsageError
from edge_agent.wire.chat_template import Segment
from edge_agent.wire.markers import END_THINK, THINK
from edge_agent.wire.messages import Message
from finetune.data.encoded_rows import EncodedRows, RowEncoder, trained_count
from finetune.data.formats.sources import Rejected, read_source
from finetune.data.formats.turns import declared_messages
from finetune.data.rows import encode_segments
from finetune.recipe import General

SHORT_TOKENS = 32
NO_THOUGHT = f"{THINK} {END_THINK}"


@dataclass(frozen=True)
class GeneralRows:
    """Rows to mix in, the last ones of the source to measure on, and how many rows could not be used."""

    mixed: EncodedRows
    held_out: EncodedRows
    rejected: int

    @property
    def short(self) -> EncodedRows:
        """The held-out rows with so few trained tokens that there is one right answer."""
        pairs = zip(self.held_out.token_ids, self.held_out.labels, strict=True)
        return EncodedRows.of((ids, labels) for ids, labels in pairs if trained_count(labels) <= SHORT_TOKENS)


def encode_general(general: General, site_rows: int, encoder: RowEncoder, seed: int) -> GeneralRows:
    """Return the rows that a recipe's general data gives.

    Args:
        general: where from and how many.
        site_rows: rows of the site, to which the share is added.
        encoder: that of the site's rows.
        seed: decides which rows are mixed in, if there are more than needed.

    Raises:
        UsageError: there is no such source, or fewer rows than are held out.
        UnavailableError: the Hub cannot be reached.
    """
    template = encoder.template
    rows: list[tuple[list[int], list[int]]] = []
    last: deque[list[Message]] = deque(maxlen=general.held_out_rows)
    rejected = 0
    for where, _, row in read_source(general.data):
        try:
            encoded = None if isinstance(row, Rejected) else encoder.encode(where, declared_messages(row))
        except UsageError:
            encoded = None
        if encoded is None or isinstance(row, Rejected):
            rejected += 1
            continue
        rows.append(encoded)
        last.append(declared_messages(row))
    kept = len(rows) - general.held_out_rows
    if kept < 1:
        held_out = f"general.held_out_rows is {general.held_out_rows}"
        raise UsageError(f"general.data: {general.data} has {len(rows)} rows that can be used, and {held_out}")
    wanted = min(kept, round(site_rows * general.share / (1 - general.share)))
    chosen = sorted(Random(f"general-{seed}").sample(range(kept), wanted))
    measured = (
        encode_segments(without_empty_thoughts(template.segments(messages)), template.name, encoder.tokenizer)
        for messages in last
    )
    return GeneralRows(EncodedRows.of(rows[at] for at in chosen), EncodedRows.of(measured), rejected)


def without_empty_thoughts(segments: list[Segment]) -> list[Segment]:
    """Return segments in which a thought that says nothing is not trained: a base has never seen one."""
    result: list[Segment] = []
    for segment in segments:
        if segment.is_trained and segment.text.startswith(NO_THOUGHT):
            result += [Segment(NO_THOUGHT, False), Segment(segment.text.removeprefix(NO_THOUGHT), True)]
        else:
            result.append(segment)
    return result
