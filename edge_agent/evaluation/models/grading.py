"""Evaluate several models on the same cases, each in a process of its own, so that memory is its own too."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import Site
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.evaluation.baselines.endpoint import ENDPOINT, Endpoint, EndpointSimulation
from edge_agent.evaluation.baselines.few_shot import FewShot
from edge_agent.evaluation.baselines.rules import RULES, NoEngine, RulesSimulation
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.cases import Case, read_cases, write_cases
from edge_agent.evaluation.conversations.executed import ExecutedConversation, Execution, execute_conversations
from edge_agent.evaluation.conversations.turn_report import Passes
from edge_agent.evaluation.conversations.turns import Conversation, TurnCase, cases_of, context_tokens_for, play_turns
from edge_agent.evaluation.evaluation import LATENCY_CASES, CaseOutcome, Evaluation, evaluate, measure_latency, spread
from edge_agent.evaluation.models.model import Model, find_models, with_shots
from edge_agent.evaluation.models.placement import Placement, alone, for_each
from edge_agent.evaluation.own.own_cases import Graded, OwnCase, run_own_cases
from edge_agent.evaluation.own.result_cache import ResultCache, result_cache
from edge_agent.evaluation.report import EngineRun, Provenance, build_report
from edge_agent.evaluation.suites import bfcl
from edge_agent.evaluation.suites.bfcl import BfclCase
from edge_agent.plugins import ENGINES, load_plugin
from edge_agent.progress import ProgressBar
from edge_agent.wire.chat_template import load_template

BATCH_SIZE = 64
SEQUENCES, SMALL_MODEL_BYTES = 16, 50_000_000


def grade(
    models: Sequence[Model],
    site: Site,
    cases: Sequence[Case],
    placement: Placement,
    *,
    latency_cases: int = LATENCY_CASES,
) -> list[EngineRun]:
    """Return every model's evaluation, in the order given; each model runs alone, in a fresh process.

    Raises:
        UnavailableError: a model's process died; the message names the model.
    """

    def grade_one(model: Model) -> EngineRun:
        sequences = _sequences(model)
        timed = 0 if sequences > 1 else latency_cases
        evaluation = alone(model, placement, _evaluate, site, tuple(cases), placement, sequences, timed)
        if timed != latency_cases:  # one by one, as on a box, with the memory of one
            one_by_one = tuple(spread(cases, latency_cases))
            latency, memory_bytes = alone(model, placement, _time, site, one_by_one, placement)
            evaluation = replace(evaluation, latency=latency, memory_bytes=memory_bytes)
        size = Path(model.path).stat().st_size if Path(model.path).is_file() else None
        return EngineRun(model.label, model.role, evaluation, size)

    return for_each(models, placement, grade_one)


def _sequences(model: Model) -> int:
    """Return how many replies a model makes at once: a small one gains nothing from several."""
    is_large = not model.engine and Path(model.path).stat().st_size > SMALL_MODEL_BYTES
    return SEQUENCES if is_large else 1


def _evaluate(
    model: Model, site: Site, cases: Sequence[Case], placement: Placement, sequences: int, latency_cases: int
) -> Evaluation:
    simulation, bar = _simulation(model, site, placement.intents), ProgressBar()
    with closing(_open(model, placement, simulation.context_tokens, sequences)) as engine:
        engine.prime(simulation.agent(World(site)).prefix)
        return evaluate(
            engine,
            cases,
            simulation.start_turn,
            batch_size=sequences if sequences > 1 else BATCH_SIZE,
            latency_cases=latency_cases,
            progress=lambda stage, done, total: bar.show(done, total, f"{model.label}: {stage} {done}/{total}"),
        )


def grade_own_cases(
    model: Model, site: Site, cases: Sequence[OwnCase], placement: Placement, *, is_fresh: bool = False
) -> list[Graded]:
    """Return what a model does with cases that a person wrote, turn by turn; it runs in a fresh process.

    What the same model file did with a case before is known (result_cache.py), unless `is_fresh`.

    Raises:
        UnavailableError: the model's process died.
    """
    cache = None
    if not model.engine and not is_fresh:
        adapter = Path(model.adapter) if model.adapter else None
        cache = result_cache(Path(model.path), adapter, site, (model.template, placement, _sequences(model)))
        if all(known := [cache.get(case) for case in cases]):
            return [one for turns in known if turns for one in turns]
    graded: list[Graded] = alone(model, placement, _grade_own_cases, site, tuple(cases), placement, cache)
    return graded


def _grade_own_cases(
    model: Model, site: Site, cases: Sequence[OwnCase], placement: Placement, cache: ResultCache | None
) -> list[Graded]:
    simulation, bar = _simulation(model, site, placement.intents), ProgressBar()
    sequences = _sequences(model)
    with closing(_open(model, placement, simulation.context_tokens, sequences)) as engine:
        engine.prime(simulation.agent(World(site)).prefix)
        return run_own_cases(
            cases,
            simulation,
            engine,
            batch_size=sequences,
            progress=lambda done, total: bar.show(done, total, f"{model.label}: {done}/{total}"),
            cache=cache,
        )


def grade_turns(model: Model, cases: Sequence[TurnCase], placement: Placement) -> Passes:
    """Return what a model replies in own conversations, free and constrained; it runs in a fresh process.

    Raises:
        UnavailableError: the model's process died.
    """
    _require_engine(model)
    passes: Passes = alone(model, placement, _grade_turns, tuple(cases), placement)
    return passes


def _grade_turns(model: Model, cases: Sequence[TurnCase], placement: Placement) -> Passes:
    template, sequences, bar = load_template(model.template), _sequences(model), ProgressBar()
    with closing(_open(model, placement, context_tokens_for(cases, template), sequences)) as engine:
        return play_turns(
            engine,
            cases,
            template,
            batch_size=sequences if sequences > 1 else BATCH_SIZE,
            progress=lambda stage, done, total: bar.show(done, total, f"{model.label}: {stage} {done}/{total}"),
        )


def grade_bfcl(model: Model, cases: Sequence[BfclCase], placement: Placement) -> bfcl.Passes:
    """Return what a model does with cases of BFCL, free and constrained; it runs in a fresh process.

    Raises:
        UnavailableError: the model's process died.
    """
    _require_engine(model)
    passes: bfcl.Passes = alone(model, placement, _grade_bfcl, tuple(cases), placement)
    return passes


def _grade_bfcl(model: Model, cases: Sequence[BfclCase], placement: Placement) -> bfcl.Passes:
    template, sequences, bar = load_template(model.template), _sequences(model), ProgressBar()
    room = context_tokens_for([case.turn for case in cases], template)
    with closing(_open(model, placement, room, sequences)) as engine:
        return bfcl.play_bfcl(
            engine,
            cases,
            template,
            batch_size=sequences if sequences > 1 else BATCH_SIZE,
            progress=lambda stage, done, total: bar.show(done, total, f"{model.label}: {stage} {done}/{total}"),
        )


def execute(
    model: Model, toolset: Site, conversations: Sequence[Conversation], placement: Placement, execution: Execution
) -> list[ExecutedConversation]:
    """Return what an agent with a model does in whole conversations of a toolset; it runs in a fresh process.

    Raises:
        UsageError: as execute_conversations.
        UnavailableError: the model's process died.
    """
    _require_engine(model)
    done: list[ExecutedConversation] = alone(
        model, placement, _execute, toolset, tuple(conversations), placement, execution
    )
    return done


def _execute(
    model: Model, toolset: Site, conversations: Sequence[Conversation], placement: Placement, execution: Execution
) -> list[ExecutedConversation]:
    template, bar = load_template(model.template), ProgressBar()
    room = context_tokens_for([case for one in conversations for case in cases_of(one)], template)
    with closing(_open(model, placement, room)) as engine:
        return execute_conversations(
            engine,
            toolset,
            template,
            conversations,
            execution,
            progress=lambda done, total: bar.show(done, total, f"{model.label}: whole conversations {done}/{total}"),
        )


def _time(model: Model, site: Site, cases: Sequence[Case], placement: Placement) -> tuple[tuple[CaseOutcome, ...], int]:
    """Return cases one by one and the memory that took, in bytes."""
    simulation = _simulation(model, site, placement.intents)
    with closing(_open(model, placement, simulation.context_tokens)) as engine:
        engine.prime(simulation.agent(World(site)).prefix)
        outcomes = measure_latency(engine, cases, simulation.start_turn)
        return tuple(outcomes), engine.memory_bytes()


def _require_engine(model: Model) -> None:
    if model.engine in (RULES, ENDPOINT):
        raise UsageError(f"{model.label} is measured on a site's cases only", hint="leave it out here")


def _simulation(model: Model, site: Site, intents: str = "") -> CaseSimulation:
    template = load_template(model.template or "chatml")
    if model.engine == RULES:
        return RulesSimulation(site, template, intents=model.path)
    if model.engine == ENDPOINT:
        return EndpointSimulation(site, template, endpoint=Endpoint.parse(model.path))
    return CaseSimulation(site, template, intents=intents, shots=model.shots)


def _open(model: Model, placement: Placement, context_tokens: int, sequences: int = 1) -> Any:
    if model.engine in (RULES, ENDPOINT):
        return NoEngine()
    if model.engine:
        options = {"adapter": model.adapter} if model.adapter else {}
        return load_plugin(ENGINES, model.engine)(
            model.path, template=model.template, device=placement.device, load_in_4bit=placement.load_in_4bit, **options
        )
    from edge_agent.engine.llama_cpp_engine import LlamaEngine

    adapter = Path(model.adapter) if model.adapter else None
    return LlamaEngine(
        Path(model.path),
        adapter=adapter,
        context_tokens=context_tokens,
        gpu_layers=placement.gpu_layers,
        sequences=sequences,
    )


def load_or_make_cases(
    path: Path | None, maker: Callable[[], Any], site: Site, count: int, seed: int, keep: Path
) -> list[Case]:
    """Return the cases of a file, or make held-out ones and keep them beside the report.

    Raises:
        UsageError: the file cannot be read, or has no case.
    """
    if path is None:
        write_cases(keep, maker()(site, count, seed))
        path = keep
    cases = read_cases(path)
    if not cases:
        raise UsageError(f"{path} has no cases")
    return cases


def evaluate_models(
    names: Sequence[str],
    site: Site,
    cases: Sequence[Case],
    placement: Placement,
    *,
    command: str,
    stage_times_s: Mapping[str, float],
    renamed: Site | None = None,
    few_shot: FewShot | None = None,
) -> dict[str, Any]:
    """Return the report over all models named; they are all found and checked before the first one runs.

    Args:
        names: of models, trained for `site`.
        site: what their contract must be.
        cases: of the site, or of `renamed`.
        placement: where they run.
        command: for the report.
        stage_times_s: for the report.
        renamed: the site with other names of tools, on which they are evaluated instead.
        few_shot: untrained models are evaluated with these examples in their prompt too.
    """
    models = find_models(names, site)
    if few_shot:
        models = with_shots(models, few_shot, renamed or site, cases)
    started_s = time.monotonic()
    runs = grade(models, renamed or site, cases, placement)
    times = dict(stage_times_s)
    if times:
        times["evaluate"] = round(time.monotonic() - started_s, 1)
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    provenance = Provenance(today, command, this_machine(), installed_versions())
    return build_report(
        runs, provenance, title=f"{site.name}, tools renamed" if renamed else site.name, stage_times_s=times
    )
