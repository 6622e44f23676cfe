"""A page about training rows: how long, of what kinds, with which tools, what repeats, and what they look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.messages import request_of
from finetune.data.encoded_rows import spans, trained_count
from finetune.data.formats.turns import declared_messages
from finetune.data.rows import Row, encode
from finetune.pages import render_page

EXAMPLES, BARS, LONGEST_LIST = 6, 20, 40


@dataclass(frozen=True)
class DataReport:
    """What a page shows.

    Attributes:
        source: where the rows are.
        rows: how many.
        varied: of them, how many have other tools than their site.
        tokens: tokens of each row, rendered and tokenized; `trained` of them are trained.
        trained: trained tokens of each row.
        kinds: how many exchanges practise what.
        tools: how often each tool is called.
        calls: how many replies call 0, 1, 2, … tools.
        copies: requests that come more than once in one and the same state, with how often.
        repeated: requests that come more than once, in any state.
        examples: some rows as stretches of text, and whether each is trained.
    """

    source: str
    rows: int
    varied: int
    tokens: list[int]
    trained: list[int]
    kinds: list[tuple[str, int]]
    tools: list[tuple[str, int]]
    calls: list[tuple[str, int]]
    copies: list[tuple[str, int]]
    repeated: int
    examples: list[tuple[str, list[tuple[str, bool]]]]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts for a machine."""
        return {
            "source": self.source,
            "rows": self.rows,
            "varied": self.varied,
            "tokens": sum(self.tokens),
            "longest_tokens": max(self.tokens),
            "trained_tokens": sum(self.trained),
            "kinds": dict(self.kinds),
            "tools": dict(self.tools),
            "calls": dict(self.calls),
            "copies": sum(count - 1 for _, count in self.copies),
            "repeated": self.repeated,
        }


def make_report(source: str, rows: Sequence[Row], template: ChatTemplate, tokenizer: Any) -> DataReport:
    """Return the report on rows, at least one. Raises UsageError as rows.encode does."""
    kinds: Counter[str] = Counter()
    tools: Counter[str] = Counter()
    calls: Counter[int] = Counter()
    asked: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    tokens, trained = [], []
    for row in rows:
        kinds.update(row.kinds)
        for message in row.messages:
            if message.role == "assistant":
                calls[len(message.calls)] += 1
                tools.update(call.name for call in message.calls)
            elif message.role == "user":
                asked[message.text] += 1
                requests[request_of(message.text).lower().strip(" .?!")] += 1
        ids, labels = encode(declared_messages(row), template, tokenizer)
        tokens.append(len(ids))
        trained.append(trained_count(labels))
    chosen = Random(1).sample(range(len(rows)), min(EXAMPLES, len(rows)))
    return DataReport(
        source=source,
        rows=len(rows),
        varied=sum(row.is_varied for row in rows),
        tokens=tokens,
        trained=trained,
        kinds=kinds.most_common(),
        tools=tools.most_common(),
        calls=[(f"{count} calls" if count != 1 else "1 call", calls[count]) for count in sorted(calls)],
        copies=[(text, count) for text, count in asked.most_common() if count > 1],
        repeated=sum(count - 1 for count in requests.values()),
        examples=[(f"row {at + 1}", _example(rows[at], template, tokenizer)) for at in sorted(chosen)],
    )


def _example(row: Row, template: ChatTemplate, tokenizer: Any) -> list[tuple[str, bool]]:
    return spans(*encode(declared_messages(row), template, tokenizer), tokenizer)


def histogram(lengths: Sequence[int]) -> list[tuple[str, int]]:
    """Return (range of tokens, rows) of about 20 ranges of one width, from the shortest row to the longest."""
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // BARS))
    counts = Counter((length - low) // width for length in lengths)
    return [
        (f"{low + place * width}–{low + (place + 1) * width - 1}", counts[place])
        for place in range((high - low) // width + 1)
    ]


def page_of(report: DataReport) -> str:
    """Return the report as one HTML file, without scripts and outside resources."""
    return render_page(
        "data.html.jinja",
        report=report,
        lengths=histogram(report.tokens),
        counts=report.to_dict(),
        longest_list=LONGEST_LIST,
    )
