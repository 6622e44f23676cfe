"""Whether evaluation cases were seen in training: the same request, one that differs in form only, or its phrasing.

Does not guard against: requests that say the same in other words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from devices.errors import GateError
from devices.site.site import Site
from edge_agent.evaluation.cases import Case
from edge_agent.wire.messages import request_of
from finetune.data.held_out import content_of, words_of
from finetune.data.rows import Row

SHOWN = 5


@dataclass(frozen=True)
class Leaks:
    """Ids of cases whose request stands in training; each is counted once.

    Attributes:
        cases: how many cases there are.
        exact: the same words.
        near: the same but for case, punctuation and empty words.
        phrasing: the same but for the devices and numbers in it.
    """

    cases: int
    exact: tuple[str, ...]
    near: tuple[str, ...]
    phrasing: tuple[str, ...]

    @property
    def found(self) -> tuple[str, ...]:
        """All of them."""
        return self.exact + self.near + self.phrasing


def find_leaks(rows: Iterable[Row], cases: Iterable[Case], site: Site) -> Leaks:
    """Return which cases' requests stand in training rows; devices are known by the site's names for them."""
    forms = _forms(site)
    asked = {request for row in rows for request in _requests(row)}
    trained = [set(map(form, asked)) for form in forms]
    leaks: tuple[list[str], ...] = ([], [], [])
    cases = list(cases)
    for case in cases:
        for form, known, found in zip(forms, trained, leaks, strict=True):
            if form(case.ask) in known:
                found.append(case.id)
                break
    return Leaks(len(cases), *map(tuple, leaks))


def without_leaks(rows: Iterable[Row], cases: Iterable[Case], site: Site) -> Iterator[Row]:
    """Yield the rows in which no case's request stands, as `find_leaks` compares them."""
    forms = _forms(site)
    asked = [case.ask for case in cases]
    known = [set(map(form, asked)) for form in forms]
    for row in rows:
        pairs = product(_requests(row), zip(forms, known, strict=True))
        if not any(form(request) in seen for request, (form, seen) in pairs):
            yield row


def _requests(row: Row) -> list[str]:
    return [request_of(message.text) for message in row.messages if message.role == "user"]


def _forms(site: Site) -> tuple[Callable[[str], tuple[str, ...]], ...]:
    """Return what makes requests comparable: the same words, nearly the same, the same phrasing."""
    names = {name.lower() for device in site.devices.values() for name in device.names}
    longest_first = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    hole = re.compile(rf"\b(?:(?:the|my|our) )?(?:{longest_first})\b|\d+(?:\.\d+)?")

    def phrasing_of(text: str) -> tuple[str, ...]:
        return words_of(hole.sub("_", text.lower()))

    return words_of, content_of, phrasing_of


def require_no_leaks(leaks: Leaks, where: str) -> None:
    """Raise GateError if training rows have seen cases; `where` names the rows."""
    if leaks.found:
        shown = ", ".join(leaks.found[:SHOWN])
        raise GateError(
            f"{where} has seen {len(leaks.found)} of {leaks.cases} evaluation cases: {shown}",
            hint="take them out of the one or the other; `edgewright data check` lists them",
        )
