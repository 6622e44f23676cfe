"""The smoke cases that a bundle takes along, and what its model does with them here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from devices.errors import UsageError
from devices.json_lines import read_json_lines
from devices.site.site import Site
from edge_agent.engine.process import EngineProcess, EngineSettings
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.cases import Case, read_cases
from edge_agent.evaluation.conversations.turn_smoke import TurnSmoke, reply_to
from edge_agent.evaluation.conversations.turns import TurnCase, score_turn
from edge_agent.evaluation.scoring import score_case
from edge_agent.evaluation.selftest import play
from edge_agent.evaluation.smoke import Smoke, SmokeReply
from edge_agent.run_facts import read_run_facts
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.messages import messages_of, request_of

SMOKE_CASES = 28  # home has 14 kinds: two of each
AnyCase = TypeVar("AnyCase", Case, TurnCase)
DRAWN_CASES, SMOKE_SEED = 300, 5000  # to choose from; gates and evaluation have seeds of their own


def words_of(ask: str) -> str:
    """Return what makes two requests the same: their words, without case and punctuation."""
    return " ".join(re.findall(r"\w+", ask.lower()))


def choose_cases(drawn: Iterable[Case], used: Collection[str]) -> list[Case]:
    """Return up to SMOKE_CASES cases, of every kind as many as of any other, as far as there are.

    Args:
        drawn: held-out cases.
        used: `words_of` of requests that training or a gate has seen; no case has one of them, and none is there twice.
    """
    unused, seen = [], set(used)
    for case in drawn:
        if (words := words_of(case.ask)) not in seen:
            seen.add(words)
            unused.append(case)
    return of_each_kind(unused)


def of_each_kind(cases: Iterable[AnyCase]) -> list[AnyCase]:
    """Return up to SMOKE_CASES cases, of every kind as many as of any other, as far as there are."""
    by_kind: dict[str, list[AnyCase]] = defaultdict(list)
    for case in cases:
        by_kind[case.kind].append(case)
    rounds = zip_longest(*by_kind.values())
    return [case for one_of_each in rounds for case in one_of_each if case][:SMOKE_CASES]


def asked_in(rows: Path) -> Iterator[str]:
    """Yield `words_of` the requests in a file of conversations; there are none in a file that is gone."""
    if not rows.is_file():
        return
    for _, messages in read_json_lines(rows, messages_of, "conversation"):
        yield from (words_of(request_of(message.text)) for message in messages if message.role == "user")


def rows_of(run: Path) -> list[Path]:
    """Return the files with a run's training conversations: those it keeps, and all where they still are."""
    return [run / "sample.jsonl", Path(read_run_facts(run).data.path)]


def read_own_cases(path: Path, site: Site) -> list[Case]:
    """Return a person's own smoke cases. Raises UsageError if they cannot be read or are of another site."""
    cases = read_cases(path)
    for case in cases:
        if strangers := sorted(case.state.keys() - site.devices.keys()):
            raise UsageError(f"{path}: case {case.id} has a device {strangers[0]!r}, which the site has not")
    return cases


def record_smoke(
    model: Path, adapter: Path | None, site: Site, template: ChatTemplate, cases: Sequence[Case]
) -> tuple[Smoke, int]:
    """Return the cases with what a model does with them, by the engine that a box has, and how many it does right.

    Args:
        model: a GGUF file.
        adapter: GGUF file of an adapter to apply to it.
        site: of the cases.
        template: of the model.
        cases: in the order in which they are asked, here and on a box.

    Raises:
        UsageError: two cases have one id.
        UnavailableError: the engine failed.
    """
    ids = [case.id for case in cases]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise UsageError(f"two smoke cases are called {twice[0]!r}")
    context_tokens = CaseSimulation(site, template).context_tokens
    with EngineProcess(EngineSettings(model, adapter=adapter, context_tokens=context_tokens)) as engine:
        outcomes = play(engine, site, template, cases)
    right = sum(score_case(outcome).is_success for outcome in outcomes)
    return Smoke(tuple(cases), tuple(map(SmokeReply.of, outcomes))), right


def record_turn_smoke(
    model: Path, adapter: Path | None, template: ChatTemplate, cases: Sequence[TurnCase]
) -> tuple[TurnSmoke, int]:
    """Return replies to be made with what a model makes of them, and how many are good; as record_smoke for a site."""
    made = reply_to(EngineSettings(model, adapter=adapter), cases, template)
    right = sum(score_turn(case, one).is_good for case, one in zip(cases, made, strict=True))
    return TurnSmoke(tuple(cases), tuple(one.text for one in made)), right
