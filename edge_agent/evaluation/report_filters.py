"""Filters of the failures on a report's page: sets of radio buttons that the style sheet reads. No script runs.

A failure has a class for each choice that it belongs to (`kind2`), the button of a choice has it as its id, and the
style sheet hides what has not the class of a checked button. A browser without `:has()`, and paper, show everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Belongs = Mapping[str, Sequence[str]]  # what a failure belongs to, by the filter's name


@dataclass(frozen=True)
class Filter:
    """One set of buttons. `chosen` is the place of the choice that the page opens with; None opens with all."""

    name: str
    title: str
    choices: tuple[str, ...]
    chosen: int | None = None


def filters_of(failures: Sequence[Belongs], titles: Mapping[str, str], chosen: Mapping[str, str]) -> list[Filter]:
    """Return the filters that have something to choose from.

    Args:
        failures: what each belongs to; the choices stand in the order in which they occur.
        titles: of the filters, by name.
        chosen: the choice that a filter opens with, by name; where no failure belongs to it, all are shown.
    """
    found = []
    for name, title in titles.items():
        choices = tuple(dict.fromkeys(one for failure in failures for one in failure[name]))
        if len(choices) > 1:
            first = choices.index(chosen[name]) if chosen.get(name) in choices else None
            found.append(Filter(name, title, choices, first))
    return found


def classes_of(failure: Belongs, filters: Sequence[Filter]) -> str:
    """Return the classes of a failure, by which the filters know it."""
    return " ".join(f"{one.name}{one.choices.index(choice)}" for one in filters for choice in failure[one.name])
