"""Run evaluation cases through an engine: many turns in lockstep, free and constrained, and some one by one for time.

Two passes tell two things. The *free* pass takes the grammar away and shows what the model says by itself; the
*constrained* pass is what runs on the box. With greedy decoding a case whose every free reply is just what the
grammar would have let through is the same in both, so only the other cases run again.

Does not guard against: an engine whose batch gives other replies than one by one (the engines' contract suite does).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from devices.simulation.world import World
from edge_agent.agent.turn import TurnResult
from edge_agent.engine.engine import Completion, Engine, Request
from edge_agent.evaluation.cases import Case, State
from edge_agent.grammar.grammar import Grammar

Turn = Generator[Request, Completion, TurnResult]
StartTurn = Callable[[Case], tuple[Turn, World]]
Progress = Callable[[str, int, int], None]
LATENCY_CASES = 30
Item = TypeVar("Item")


class EvaluationEngine(Engine, Protocol):
    """An engine that can also say whether a free reply is what its own grammar would have given.

    `accepts` is an addition to the Engine protocol; only evaluation needs it.
    """

    def accepts(self, grammar: Grammar, token_ids: Sequence[int]) -> bool:
        """Return whether constrained greedy decoding would have produced exactly these tokens.

        Args:
            grammar: the grammar that the request had before the free pass took it away.
            token_ids: the `token_ids` of a Completion of this engine, made without a grammar, that ended
                with the end of the turn (whose token is not among them).

        Returns:
            True only if every token is allowed where it stands, every stretch the engine would have forced is
            spelled with the same tokens, and the grammar may end after the last one. A wrong False costs time,
            a wrong True exactness.
        """
        ...


@dataclass(frozen=True)
class CaseOutcome:
    """What came of one case.

    Attributes:
        case: the case.
        result: the agent's turn.
        state_after: every property after the turn, as the world has it.
        seconds: wall time of the turn; in a batch it includes waiting for the others.
        fits_grammar: whether every reply is what the constrained pass gives; always True there.
    """

    case: Case
    result: TurnResult
    state_after: State
    seconds: float
    fits_grammar: bool


@dataclass(frozen=True)
class Evaluation:
    """One engine over all cases: `free` and `constrained` in the order of the cases, `latency` a sample, one by one.

    `rerun_cases` counts the cases whose constrained outcome could not be taken from the free pass.
    """

    engine: str
    free: tuple[CaseOutcome, ...]
    constrained: tuple[CaseOutcome, ...]
    latency: tuple[CaseOutcome, ...]
    rerun_cases: int
    memory_bytes: int
    wall_s: float


def evaluate(
    engine: EvaluationEngine,
    cases: Sequence[Case],
    start_turn: StartTurn,
    *,
    batch_size: int,
    latency_cases: int = LATENCY_CASES,
    progress: Progress | None = None,
) -> Evaluation:
    """Return what an engine does with the cases, free and constrained, and its time one by one.

    Args:
        engine: greedy; the caller has primed it with the static prefix.
        cases: each starts in its own world.
        start_turn: makes the world of a case and opens the agent's turn in it; called again for each pass. Its
            turns need a generous time limit: in a batch the clock also runs while they wait for the others.
        batch_size: how many turns are open at once.
        latency_cases: how many cases, spread over all, are timed alone; 0 times none.
        progress: called with the pass ("free", "constrained", "latency"), cases done and cases in all.

    Raises:
        UnavailableError: the engine failed.
    """
    start = time.perf_counter()
    free = run_cases(engine, cases, start_turn, batch_size=batch_size, is_free=True, progress=named("free", progress))
    again = [index for index, outcome in enumerate(free) if not outcome.fits_grammar]
    rerun = run_cases(
        engine,
        [cases[index] for index in again],
        start_turn,
        batch_size=batch_size,
        progress=named("constrained", progress),
    )
    constrained = dict(enumerate(free)) | dict(zip(again, rerun, strict=True))
    latency = measure_latency(engine, spread(cases, latency_cases), start_turn, progress=named("latency", progress))
    return Evaluation(
        engine=engine.name,
        free=tuple(free),
        constrained=tuple(constrained[index] for index in range(len(cases))),
        latency=tuple(latency),
        rerun_cases=len(again),
        memory_bytes=engine.memory_bytes(),
        wall_s=time.perf_counter() - start,
    )


def named(stage: str, progress: Progress | None) -> Callable[[int, int], None]:
    """Return what tells of one pass, for what counts cases only."""
    return lambda done, total: progress(stage, done, total) if progress else None


def spread(cases: Sequence[Item], count: int) -> list[Item]:
    """Return `count` cases at even distances, or all if there are no more: files are often sorted by kind."""
    if count >= len(cases):
        return list(cases)
    return [cases[(2 * index + 1) * len(cases) // (2 * count)] for index in range(count)]


def measure_latency(
    engine: EvaluationEngine,
    cases: Sequence[Case],
    start_turn: StartTurn,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[CaseOutcome]:
    """Return the outcomes of constrained turns run alone, after one turn that is not counted (later calls, warm)."""
    run_cases(engine, cases[:1], start_turn, batch_size=1)
    return run_cases(engine, cases, start_turn, batch_size=1, progress=progress)


@dataclass
class _OpenTurn:
    position: int
    case: Case
    turn: Turn
    world: World
    request: Request
    start_s: float
    fits_grammar: bool = True


def run_cases(
    engine: EvaluationEngine,
    cases: Sequence[Case],
    start_turn: StartTurn,
    *,
    batch_size: int,
    is_free: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[CaseOutcome]:
    """Return one outcome for each case, in order; up to `batch_size` turns advance in lockstep.

    Every step collects the request that each open turn waits for, asks the engine once, and sends the completions
    back. A turn that ends makes room for the next case, so the batch stays full.

    Args:
        engine: answers a whole batch; `accepts` is asked in a free pass only.
        cases: each starts in its own world.
        start_turn: makes the world of a case and opens the agent's turn in it.
        batch_size: at least 1.
        is_free: take the grammar away from every request.
        progress: called with cases done and cases in all.

    Raises:
        UnavailableError: the engine failed.
    """
    assert batch_size >= 1
    waiting = deque(enumerate(cases))
    open_turns: list[_OpenTurn] = []
    outcomes: dict[int, CaseOutcome] = {}
    while waiting or open_turns:
        while waiting and len(open_turns) < batch_size:
            opened = _open(*waiting.popleft(), start_turn)
            if isinstance(opened, _OpenTurn):
                open_turns.append(opened)
            else:
                outcomes |= opened
        if open_turns:
            requests = [replace(turn.request, grammar=None) if is_free else turn.request for turn in open_turns]
            completions = engine.generate(requests)
            still_open = []
            for turn, completion in zip(open_turns, completions, strict=True):
                if is_free and not fits(engine, turn.request, completion):
                    turn.fits_grammar = False
                ended = _advance(turn, completion)
                if ended is None:
                    still_open.append(turn)
                else:
                    outcomes[turn.position] = ended
            open_turns = still_open
        if progress:
            progress(len(outcomes), len(cases))
    return [outcomes[position] for position in range(len(cases))]


def _open(position: int, case: Case, start_turn: StartTurn) -> _OpenTurn | dict[int, CaseOutcome]:
    start_s = time.perf_counter()
    turn, world = start_turn(case)
    try:
        return _OpenTurn(position, case, turn, world, next(turn), start_s)
    except StopIteration as ended:  # the turn needed no model
        seconds = time.perf_counter() - start_s
        return {position: CaseOutcome(case, ended.value, world.snapshot(), seconds, fits_grammar=True)}


def _advance(open_turn: _OpenTurn, completion: Completion) -> CaseOutcome | None:
    try:
        open_turn.request = open_turn.turn.send(completion)
    except StopIteration as ended:
        seconds = time.perf_counter() - open_turn.start_s
        state = open_turn.world.snapshot()
        return CaseOutcome(open_turn.case, ended.value, state, seconds, open_turn.fits_grammar)
    return None


def fits(engine: EvaluationEngine, request: Request, completion: Completion) -> bool:
    """Return whether a free reply is what the request's grammar would have given."""
    # A reply that was cut (length, timeout) may be cut elsewhere under a grammar: run it again.
    if request.grammar is None:
        return True
    return completion.stop_reason == "end_of_turn" and engine.accepts(request.grammar, completion.token_ids)
