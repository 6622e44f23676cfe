"""Whether evaluation cases were seen in training: the same request, or one that differs in form only.

Does not guard against: requests that say the same in other words. Our own cases share no phrasing template with
training (finetune/phrases.py); of others' data nothing is known but its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edge_agent.cases import Case
from edge_agent.wire import request_of
from finetune.rows import Row

EMPTY_WORDS = frozenset("a an the my your our please kindly now just".split())


@dataclass(frozen=True)
class Leaks:
    """Ids of cases whose request stands in training: as it is, or but for case, punctuation and empty words."""

    cases: int
    exact: tuple[str, ...]
    near: tuple[str, ...]


def find_leaks(rows: Iterable[Row], cases: Iterable[Case]) -> Leaks:
    """Return which cases' requests stand in training rows; an exact one is not counted as near too."""
    asked = {request_of(message.text) for row in rows for message in row.messages if message.role == "user"}
    exact, plain = {_words(text) for text in asked}, {_content(text) for text in asked}
    cases = list(cases)
    found = [case.id for case in cases if _words(case.ask) in exact]
    near = [case.id for case in cases if case.id not in found and _content(case.ask) in plain]
    return Leaks(len(cases), tuple(found), tuple(near))


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def _content(text: str) -> tuple[str, ...]:
    return tuple(word for word in _words(text) if word not in EMPTY_WORDS)
