"""The self-test: this machine's engine does a bundle's smoke cases in simulated worlds, compared with the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from devices.broker.journal import JOURNAL_IN_BOX
from devices.errors import EdgeError, UnavailableError, UsageError
from devices.simulation.world import World
from devices.site.site import Site
from edge_agent.agent.session import engine_settings
from edge_agent.bundle import Bundle, hold_bundle
from edge_agent.engine.engine import Engine
from edge_agent.engine.process import EngineProcess
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.conversations.turn_smoke import read_turn_smoke, reply_to
from edge_agent.evaluation.evaluation import CaseOutcome, EvaluationEngine, run_cases
from edge_agent.evaluation.smoke import SelfTest, SmokeReply, compare, read_smoke
from edge_agent.wire.chat_template import ChatTemplate

NOTHING_TESTED = "self-test: the bundle has no smoke cases with a record, so nothing was tested"
Progress = Callable[[int, int], None]


def play(
    engine: Engine, site: Site, template: ChatTemplate, cases: Sequence[Case], progress: Progress | None = None
) -> list[CaseOutcome]:
    """Return what an engine does with cases, one by one, each in a simulated world of its own; nothing real moves.

    Args:
        engine: greedy. It is primed first, so that at export and on a box it computes the same in the same order.
        site: the cases'.
        template: the model's.
        cases: in the order in which they are asked.
        progress: called with cases done and cases in all.

    Raises:
        UnavailableError: the engine failed.
    """
    simulation = CaseSimulation(site, template)
    engine.prime(simulation.agent(World(site)).prefix)
    grading = cast(EvaluationEngine, engine)  # `accepts` is asked in free passes only
    return run_cases(grading, cases, simulation.start_turn, batch_size=1, progress=progress)


def run_selftest(bundle: Bundle, box: Path | None = None, progress: Progress | None = None) -> SelfTest | None:
    """Return how this machine's engine does the smoke cases; None if the bundle has none with a record.

    Args:
        bundle: held while this runs.
        box: root of the box whose measured settings the engine takes; what it keeps there is left as it is.
        progress: called with cases done and cases in all.

    Raises:
        UsageError, BundleTampered: cases or record cannot be read.
        UnavailableError: the engine failed.
    """
    simulation = CaseSimulation(bundle.site, bundle.template)
    settings = engine_settings(bundle, simulation, (box / JOURNAL_IN_BOX).parent if box else None)
    settings = replace(settings, cache=None)
    if bundle.site.is_toolset:
        if (turns := read_turn_smoke(bundle)) is None:
            return None
        made = reply_to(settings, turns.cases, bundle.template, progress)
        return turns.compare(made, bundle.site.functions)
    if (smoke := read_smoke(bundle)) is None:
        return None
    with EngineProcess(settings) as engine:
        outcomes = play(engine, bundle.site, bundle.template, smoke.cases, progress)
    return compare(smoke, [SmokeReply.of(outcome) for outcome in outcomes])


def selftest(path: Path, progress: Progress | None = None) -> SelfTest:
    """Return how this machine's engine does the smoke cases of a bundle, or of a box's current one.

    Raises:
        UsageError: there is no bundle, or it has no smoke cases with a record.
        Others: as open_bundle and run_selftest.
    """
    with hold_bundle(path) as bundle:
        found = run_selftest(bundle, path if bundle.path != path.resolve() else None, progress)
    if found is None:
        raise UsageError(f"{path}: {NOTHING_TESTED}", hint="export it again: exports write some by themselves")
    return found


def selftest_for(box: Path) -> Callable[[Bundle], str]:
    """Return the self-test that a flash to a box runs before it makes a bundle current.

    It returns a line about what came of it, and raises GateError if it failed, UnavailableError if it could not run.
    """

    def test(bundle: Bundle) -> str:
        try:
            found = run_selftest(bundle, box)
        except EdgeError as error:
            hint = "--no-selftest, if the box is of another kind than this machine; then `edgewright selftest` there"
            raise UnavailableError(f"the self-test cannot run here: {error}", hint=hint) from error
        if found is None:
            return NOTHING_TESTED
        found.require(bundle.path)
        return str(found)

    return test
