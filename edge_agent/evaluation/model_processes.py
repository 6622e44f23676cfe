"""Evaluate several models on the same cases, each in a process of its own, so that memory is its own too."""

from __future__ import annotations

import datetime
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devices.errors import UnavailableError, UsageError
from devices.simulation.world import World
from devices.site.site import Site
from edge_agent.base_models import PACKAGES, base_path
from edge_agent.bundle import ANY_SITE_KEY, CONTRACT_KEY, CURRENT, MANIFEST, TEMPLATE_KEY, open_bundle
from edge_agent.engine.gguf_header import require_gguf
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.engine.worker import end_with_parent
from edge_agent.evaluation.baselines.endpoint import ENDPOINT, Endpoint, EndpointSimulation
from edge_agent.evaluation.baselines.few_shot import FewShot
from edge_agent.evaluation.baselines.rules import RULES, NoEngine, RulesSimulation
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.cases import Case, read_cases, write_cases
from edge_agent.evaluation.conversations.executed import ExecutedConversation, Execution, execute_conversations
from edge_agent.evaluation.conversations.turn_report import Passes
from edge_agent.evaluation.conversations.turns import Conversation, TurnCase, cases_of, context_tokens_for, play_turns
from edge_agent.evaluation.evaluation import LATENCY_CASES, CaseOutcome, Evaluation, evaluate, measure_latency, spread
from edge_agent.evaluation.own.own_cases import Graded, OwnCase, run_own_cases
from edge_agent.evaluation.own.result_cache import ResultCache, result_cache
from edge_agent.evaluation.report import EngineRun, Provenance, Role, build_report
from edge_agent.evaluation.suites import bfcl
from edge_agent.evaluation.suites.bfcl import BfclCase
from edge_agent.plugins import ENGINES, HUGGINGFACE, load_plugin
from edge_agent.progress import ProgressBar
from edge_agent.run_facts import RUN_FILE, read_run_facts
from edge_agent.wire.chat_template import ChatTemplate, load_template
from edge_agent.wire.contract import contract_of, format_digest, require_contract
from edge_agent.wire.messages import Message

BATCH_SIZE = 64
SEQUENCES, SMALL_MODEL_BYTES = 16, 50_000_000


@dataclass(frozen=True)
class Model:
    """A model to evaluate.

    Attributes:
        label: as the report calls it.
        role: what it is compared with.
        path: GGUF file, or what the engine takes.
        engine: name of an engine that another package offers (plugins.py), or rules; "" for llama.cpp.
        template: name of its chat template; "" is that of the models beside it.
        adapter: of a LoRA adapter to apply: a GGUF file to a GGUF file, a folder to what an engine takes; "" for none.
        shots: worked examples in every prompt.
    """

    label: str
    role: Role
    path: str
    engine: str = ""
    template: str = ""
    adapter: str = ""
    shots: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Placement:
    """How models run.

    `device` is cpu or cuda, `gpu_layers` llama.cpp's count (-1 for all), `intents` as Simulation's.
    """

    device: str = "cpu"
    gpu_layers: int = 0
    load_in_4bit: bool = False
    intents: str = ""


def find_model(name: str, site: Site) -> Model:
    """Return what an argument stands for: GGUF file, bundle, box, run, Hugging Face folder, hub name, rules, or a URL.

    Raises:
        UsageError: it is none of them.
        ContractChanged: it was trained for another site, template or prompt.
    """
    if name in PACKAGES:
        return Model("base", "base", base_path(name), HUGGINGFACE)
    path = Path(name)
    if name.partition(":")[0] == RULES:
        language = name.partition(":")[2] or "en"
        return Model(f"rules, {language}", "base", language, RULES)
    if name.startswith(("http://", "https://")):
        return Model(Endpoint.parse(name).model, "base", name, ENDPOINT)
    if path.suffix == ".gguf":
        header = require_gguf(path)
        template = str(header.metadata.get(TEMPLATE_KEY, ""))
        trained_for, any_site = (str(header.metadata.get(key, "")) for key in (CONTRACT_KEY, ANY_SITE_KEY))
        if trained_for:
            _require_trained_for(trained_for, any_site, site, load_template(template), str(path))
        quant = path.stem.removeprefix("model-")
        role: Role = "base" if not trained_for else "f16" if quant == "F16" else "quant"
        return Model(quant, role, name, template=template)
    if (path / MANIFEST).is_file() or (path / CURRENT).is_symlink():
        bundle = open_bundle(path)
        bundle.require_site(site)
        label = f"{bundle.manifest.quant} (bundle)"
        adapter = str(bundle.adapter_path or "")
        return Model(label, "quant", str(bundle.model_path), template=bundle.template.name, adapter=adapter)
    if (path / RUN_FILE).is_file():
        run = read_run_facts(path)
        _require_trained_for(run.contract, run.any_site, site, load_template(run.template), f"run {path}")
        return Model("tuned", "tuned", name, HUGGINGFACE, run.template)
    is_mistyped = not path.exists() and path.parent != Path() and path.parent.is_dir()  # no name on the hub
    if is_mistyped or (path.exists() and not (path / "config.json").is_file()):
        raise UsageError(
            f"{path} is no model", hint="give a .gguf file, a bundle, a box, a run or a Hugging Face folder"
        )
    return Model("base", "base", name, HUGGINGFACE)


def find_models(names: Sequence[str], site: Site) -> list[Model]:
    """Return what several arguments stand for; one without a chat template gets that of the models beside it."""
    found = [find_model(name, site) for name in names]
    template = next((model.template for model in found if model.template), "chatml")
    return [model if model.template else replace(model, template=template) for model in found]


def with_shots(models: Sequence[Model], few_shot: FewShot, site: Site, cases: Sequence[Case]) -> list[Model]:
    """Return models, each untrained one followed by itself with worked examples in its prompt.

    Raises:
        UsageError: none is untrained, or as FewShot.messages.
    """
    found, asks = list[Model](), {case.ask for case in cases}
    for model in models:
        found.append(model)
        if model.role == "base" and model.engine in ("", HUGGINGFACE):
            shots = few_shot.messages(contract_of(site, load_template(model.template)), asks)
            found.append(replace(model, label=f"{model.label}, {few_shot.count} shots", shots=shots))
    if len(found) == len(models):
        raise UsageError(
            "--few-shot: no model here is untrained", hint="name a base, such as smollm2, or its GGUF file"
        )
    return found


def _require_trained_for(trained_for: str, any_site: str, site: Site, template: ChatTemplate, what: str) -> None:
    if any_site:
        require_contract(any_site, format_digest(template), what)
    else:
        require_contract(trained_for, contract_of(site, template).digest, what)


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
    runs = []
    for model in models:
        sequences = _sequences(model)
        timed = 0 if sequences > 1 else latency_cases
        evaluation = _alone(model, _evaluate, model, site, tuple(cases), placement, sequences, timed)
        if timed != latency_cases:  # one by one, as on a box, with the memory of one
            one_by_one = tuple(spread(cases, latency_cases))
            latency, memory_bytes = _alone(model, _time, model, site, one_by_one, placement)
            evaluation = replace(evaluation, latency=latency, memory_bytes=memory_bytes)
        size = Path(model.path).stat().st_size if Path(model.path).is_file() else None
        runs.append(EngineRun(model.label, model.role, evaluation, size))
    return runs


def _alone(model: Model, work: Callable[..., Any], *given: Any) -> Any:
    """Return what a function gives in a fresh process. Raises UnavailableError if the process died."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        try:
            return pool.submit(work, *given).result()
        except BrokenProcessPool as error:
            raise UnavailableError(f"the process that evaluated {model.label} died", hint="out of memory?") from error


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
    graded: list[Graded] = _alone(model, _grade_own_cases, model, site, tuple(cases), placement, cache)
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
    passes: Passes = _alone(model, _grade_turns, model, tuple(cases), placement)
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
    passes: bfcl.Passes = _alone(model, _grade_bfcl, model, tuple(cases), placement)
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
    done: list[ExecutedConversation] = _alone(
        model, _execute, model, toolset, tuple(conversations), placement, execution
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
