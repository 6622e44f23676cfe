"""The table of a strict evaluation: shares with 95 % intervals, per tool and per argument, free and constrained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from edge_agent.evaluation.conversations.executed import ExecutedConversation
from edge_agent.evaluation.conversations.turns import TurnScore
from edge_agent.evaluation.intervals import Share, share_of

Passes = tuple[Sequence[TurnScore], Sequence[TurnScore]]  # free, constrained
METRICS: tuple[tuple[str, str, Callable[[TurnScore], bool | None]], ...] = (
    ("good", "reply is good (calls, or answer with its facts)", lambda one: one.is_good),
    ("decided", "calls where it should, and only there", lambda one: one.is_decided),
    ("json", "what begins as a call is JSON", lambda one: one.is_json),
    ("usable", "parses, and calls fit their schemas", lambda one: one.is_usable),
    ("tool", "tools are right", lambda one: one.is_tool_right),
    ("exact", "arguments are right, byte for byte", lambda one: one.is_exact),
    ("arguments", "arguments are right, normalised", lambda one: one.is_right),
    ("would_do", "right but for composed text", lambda one: one.would_do),
    ("order", "several calls in order", lambda one: one.is_ordered),
    ("no_invented_tool", "no tool is invented", lambda one: not one.invents_tool),
    ("no_invented_argument", "no argument is invented", lambda one: not one.invents_argument),
    ("facts", "answer has the facts of the results", lambda one: one.has_facts),
    ("ended", "ends by itself", lambda one: one.has_ended),
)
WAYS: tuple[tuple[str, Callable[[TurnScore], bool]], ...] = (  # in which a reply is not good, as the page names them
    ("answered, and should have called", lambda one: not one.is_decided and one.is_tool_right is not None),
    ("called, and should have answered", lambda one: not one.is_decided and one.is_tool_right is None),
    ("other tools", lambda one: one.is_decided and one.is_tool_right is False),
    ("wrong arguments", lambda one: one.is_tool_right is True and not one.would_do),
    ("invented a tool", lambda one: one.invents_tool),
    ("invented an argument", lambda one: one.invents_argument),
    ("facts are missing", lambda one: one.is_decided and one.has_facts is False),
    ("cannot be used", lambda one: not one.is_usable),
    ("did not end", lambda one: not one.has_ended),
)
WIDTH = 48


def metrics_of(scores: Iterable[TurnScore]) -> dict[str, Share]:
    """Return each metric's share of the replies that it applies to."""
    listed = list(scores)
    return {name: _share(measure(one) for one in listed) for name, _, measure in METRICS}


def _share(flags: Iterable[bool | None]) -> Share:
    return share_of(flag for flag in flags if flag is not None)


def ways_of(score: TurnScore) -> list[str]:
    """Return in which ways a reply that is not good is not."""
    return [] if score.is_good else [way for way, is_so in WAYS if is_so(score)]


def by_tool(scores: Iterable[TurnScore]) -> dict[str, Share]:
    """Return the share of good replies for each kind: the tools that should be called, or an answer."""
    return _shares((one.kind, one.is_good) for one in scores)


def by_argument(scores: Iterable[TurnScore]) -> dict[str, Share]:
    """Return the share of right values for each argument, where the tool is right."""
    return _shares(pair for one in scores for pair in one.arguments)


def _shares(pairs: Iterable[tuple[str, bool]]) -> dict[str, Share]:
    found: dict[str, list[bool]] = {}
    for name, flag in pairs:
        found.setdefault(name, []).append(flag)
    return {name: share_of(flags) for name, flags in sorted(found.items())}


def turns_table(models: Sequence[tuple[str, Passes]]) -> str:
    """Return the table for the terminal: a column for each model and pass."""
    columns = [(f"{label}, {name}", scores) for label, passes in models
               for name, scores in zip(("free", "grammar"), passes, strict=True)]  # fmt: skip
    widths = [max(len(label), 17) for label, _ in columns]
    lines = [" " * WIDTH + "  ".join(f"{label:>{width}}" for (label, _), width in zip(columns, widths, strict=True))]

    def add(title: str, shares: Sequence[Share]) -> None:
        texts = [_text(share) for share in shares]
        if any(share.total for share in shares):
            cells = "  ".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
            lines.append(f"{title:<{WIDTH}}{cells}")

    measured = [metrics_of(scores) for _, scores in columns]
    for name, title, _ in METRICS:
        add(title, [found[name] for found in measured])
    for heading, parted in (("good, by what is due", by_tool), ("right values, by argument", by_argument)):
        parts = [parted(scores) for _, scores in columns]
        names = dict.fromkeys(name for part in parts for name in part)
        lines += [heading + ":"] if names else []
        for name in names:
            add(f"  {name}"[: WIDTH - 1], [part.get(name, share_of(())) for part in parts])
    return "\n".join(lines)


def _text(share: Share) -> str:
    if share.share is None or share.low is None or share.high is None:
        return "-"
    return f"{share.count}/{share.total} ({100 * share.low:.0f}-{100 * share.high:.0f} %)"


def executed_line(label: str, done: Sequence[ExecutedConversation]) -> str:
    """Return what a model came to in whole conversations, for the terminal."""
    return f"{label}: whole conversations done {_text(share_of(one.is_done for one in done))}"


def to_plain(
    models: Sequence[tuple[str, Passes]], executed: Sequence[Sequence[ExecutedConversation]] = ()
) -> list[dict[str, Any]]:
    """Return everything that was measured, as plain data; `executed` has whole conversations of each model, if any."""
    return [
        {
            "label": label,
            "executed": {
                "done": asdict(share_of(one.is_done for one in whole)),
                "conversations": [asdict(one) | {"is_done": one.is_done} for one in whole],
            },
            **{
                name: {
                    "metrics": {key: asdict(share) for key, share in metrics_of(scores).items()},
                    "by_tool": {key: asdict(share) for key, share in by_tool(scores).items()},
                    "by_argument": {key: asdict(share) for key, share in by_argument(scores).items()},
                    "replies": [asdict(one) | {"is_good": one.is_good, "ways": ways_of(one)} for one in scores],
                }
                for name, scores in zip(("free", "constrained"), passes, strict=True)
            },
        }
        for (label, passes), whole in zip(models, executed or [()] * len(models), strict=True)
    ]
