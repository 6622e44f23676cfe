"""The commands `edgewright eval` and `compare`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Annotated, Any, cast, get_args

import typer

from devices.errors import GateError, UsageError, did_you_mean
from devices.options import GpuLayers, Intents, Json, Site, Toolset, TorchDevice
from edge_agent.evaluation.cases import CASES, CASES_SEED
from edge_agent.plugins import CASE_MAKERS, GENERATOR, load_plugin


def register(app: typer.Typer) -> None:
    """Add this part's commands."""
    app.command("eval")(evaluate)
    app.command("compare")(compare)
    cases = typer.Typer(no_args_is_help=True, help="Cases of your own, for `edgewright eval --cases`.")
    cases.command("new")(new_cases)
    cases.command("from-journal")(cases_from_journal)
    app.add_typer(cases, name="cases")


def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="GGUF files, bundles, boxes, runs, folders, hub names, rules or URL#MODEL.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html and report.json.")],
    site: Site = "home",
    tools: Toolset = "",
    cases: Annotated[
        Path | None, typer.Option(help="A file of cases, or a .yaml file of your own; default: made anew, held out.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "-n", "--count", min=1, help=f"Cases to make, or to take from a .yaml file; default: {CASES}, or all."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the cases to make.")] = CASES_SEED,
    device: TorchDevice = "cpu",
    gpu_layers: GpuLayers = 0,
    names_seed: Annotated[
        int | None,
        typer.Option("--renamed", help="Give tools and arguments other names, by this seed; a site's cases are new."),
    ] = None,
    load_in_4bit: Annotated[bool, typer.Option("--nf4", help="Load Hugging Face models as NF4.")] = False,
    intents: Intents = "",
    execution: Annotated[
        str,
        typer.Option(
            "--execute",
            metavar="recorded|live",
            help="Of a toolset, also whole conversations: calls are answered as recorded, or carried out, confirmed.",
        ),
    ] = "",
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            metavar="bfcl[=FOLDER]|ha-intents=FOLDER",
            help="Cases of others: the Berkeley leaderboard's, or Home Assistant's intents on a home of their own.",
        ),
    ] = "",
    misses: Annotated[bool, typer.Option("--misses", help="Of a .yaml file, also print what went wrong.")] = False,
    is_fresh: Annotated[
        bool, typer.Option("--fresh", help="Of a .yaml file, run cases again that this model file has done before.")
    ] = False,
    states: Annotated[
        int,
        typer.Option(
            min=1, help="Of a .yaml file or ha-intents, begin each case in so many states: right in all (pass^k)?"
        ),
    ] = 1,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            metavar="METRIC=SHARE",
            help="Exit with 5 if the last model has less: task_success=0.9; of a .yaml file total=0.9, or a kind.",
        ),
    ] = None,
    stage_times: Annotated[Path | None, typer.Option(hidden=True)] = None,
    as_json: Json = False,
) -> None:
    """Measure models on the same held-out cases; writes report.html and report.json."""
    from devices.site.renaming import renamed
    from devices.site.site import load_site
    from edge_agent.evaluation.model_processes import Placement, evaluate_models, load_or_make_cases
    from edge_agent.evaluation.report import terminal_table, write_report

    trained, placement = load_site(tools or site), Placement(device, gpu_layers, load_in_4bit, intents)
    limits = _limits_of(fail_under or ())
    is_own = bool(cases and cases.suffix in {".yaml", ".yml"})
    if states > 1 and not (is_own and not trained.is_toolset) and suite.partition("=")[0] != "ha-intents":
        raise UsageError(
            "--states is of --cases FILE.yaml and of --suite ha-intents", hint="other cases have one state"
        )
    if suite:
        _evaluate_suite(models, suite, count, trained, placement, out, misses, is_fresh, states, limits, as_json)
        return
    if trained.is_toolset:
        _evaluate_turns(models, cases, trained, placement, out, execution, names_seed, limits, as_json)
        return
    if execution:
        raise UsageError("--execute is of toolsets", hint="a site's cases are always carried out, in simulated worlds")
    if names_seed is not None and cases:
        raise UsageError("--renamed makes its own cases: those of a file have the tools' own names")
    if cases and is_own:
        from edge_agent.evaluation.own.own_cases import read_own_cases
        from edge_agent.evaluation.own.own_evaluation import OwnSuite

        own = OwnSuite(read_own_cases(cases, trained), f"{trained.name}: requests of {cases.name}", str(cases))
        _evaluate_own(models, own, count, trained, placement, out, misses, is_fresh, states, limits, as_json)
        return
    other = None if names_seed is None else renamed(trained, Random(names_seed))
    loaded = load_or_make_cases(
        cases, lambda: load_plugin(CASE_MAKERS, GENERATOR), other or trained, count or CASES, seed, out / "cases.jsonl"
    )
    times = json.loads(stage_times.read_text(encoding="utf-8")) if stage_times else {}
    report = evaluate_models(
        models,
        trained,
        loaded,
        placement,
        command=_command_line(),
        stage_times_s=times,
        renamed=other,
    )
    json_path, html_path = write_report(report, out)
    print(json_path.read_text(encoding="utf-8") if as_json else f"{terminal_table(report)}\n{html_path}")
    _require(limits, report["engines"][-1]["label"], report["engines"][-1]["shares"])


def _limits_of(given: Iterable[str]) -> dict[str, float]:
    limits = {}
    for one in given:
        name, _, share = one.partition("=")
        try:
            limits[name] = float(share)
        except ValueError:
            raise UsageError(f"--fail-under {one}", hint="as in --fail-under task_success=0.9") from None
    return limits


def _require(limits: Mapping[str, float], label: str, shares: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise GateError if a model's share is below its limit, or there was nothing to measure."""
    for name, least in limits.items():
        if name not in shares:
            raise UsageError(f"--fail-under {name}: not measured", hint=did_you_mean(name, shares))
        share = shares[name]["share"]
        if share is None or share < least:
            found = "no case" if share is None else f"{share:.1%} ({shares[name]['count']} of {shares[name]['total']})"
            raise GateError(f"{label}: {name} is {found}, less than {least:.1%}")


def compare(
    before: Annotated[Path, typer.Argument(help="A folder that `edgewright eval` filled, or its JSON file.")],
    after: Annotated[Path, typer.Argument(help="Another one, on the same cases.")],
    model: Annotated[str, typer.Option(help="Of each, by its label; default: the last one.")] = "",
    fails_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit with 5 if more was lost than chance explains.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare two evaluations case by case: what was gained and lost, with an interval; prints Markdown."""
    from dataclasses import asdict

    from edge_agent.evaluation.comparison import compare as compare_results
    from edge_agent.evaluation.comparison import comparison_text, read_result

    first, second = read_result(before, model), read_result(after, model)
    found = compare_results(first, second)
    text = comparison_text(f"{first.label}, {before}", f"{second.label}, {after}", found)
    print(json.dumps(asdict(found), ensure_ascii=False) if as_json else text)
    if fails_if_worse:
        found.require_not_worse()


_CasesFile = Annotated[Path, typer.Option("--out", metavar="FILE.yaml", help="Cases are added to it.")]


def new_cases(out: _CasesFile, site: Site = "home") -> None:
    """Make cases at the terminal: what is said, and what must be so afterwards."""
    from devices.site.site import load_site
    from edge_agent.evaluation.own.case_writing import CaseFile
    from edge_agent.evaluation.own.case_writing import new_cases as make

    file = CaseFile(out, load_site(site))
    made = make(file, _read, _tell)
    print(f"{made} cases more, {file.count} in {out}")


def cases_from_journal(
    box: Annotated[Path, typer.Argument(metavar="BOX|JOURNAL", help="A box, or its journal's file.")],
    out: _CasesFile,
    site: Site = "home",
) -> None:
    """Go through what a box was asked, say what was right, and make cases of it."""
    from devices.broker.journal import journal_path, read_events
    from devices.site.site import load_site
    from edge_agent.agent.asked import asked_in
    from edge_agent.evaluation.own.case_writing import CaseFile, judge

    asked = asked_in(read_events(journal_path(box)))
    if not asked:
        raise UsageError(f"{box}: nothing was asked", hint="requests to `edgewright run` and `serve` are written there")
    file = CaseFile(out, load_site(site))
    _tell(f"{len(asked)} requests; what is judged is written at once")
    made = judge(file, asked, _read, _tell)
    print(f"{made} cases more, {file.count} in {out}")


def _read(prompt: str) -> str | None:
    try:
        return input(prompt).strip()
    except EOFError:
        return None


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _evaluate_own(
    models: list[str],
    suite: Any,
    count: int | None,
    site: Any,
    placement: Any,
    out: Path,
    misses: bool,
    is_fresh: bool,
    states: int,
    limits: Mapping[str, float],
    as_json: bool,
) -> None:
    """Grade models on own cases, all or some at even distances; writes own_cases.html and .json."""
    from devices.durable import write_file
    from edge_agent.evaluation.evaluation import spread
    from edge_agent.evaluation.model_processes import find_model
    from edge_agent.evaluation.own.own_evaluation import evaluate_own
    from edge_agent.evaluation.report_page import render_own_cases

    tables, plain = evaluate_own(
        [find_model(name, site) for name in models],
        replace(suite, cases=spread(suite.cases, count)) if count else suite,
        site,
        placement,
        command=_command_line(),
        states=states,
        is_fresh=is_fresh,
        shows_misses=misses,
    )
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain, ensure_ascii=False, indent=1)
    write_file(out / "own_cases.json", text.encode())
    write_file(out / "own_cases.html", render_own_cases(plain).encode())
    print(text if as_json else "\n\n".join([*tables, str(out / "own_cases.html")]))
    last = plain["models"][-1]
    in_states = {"in_all_states": last["states"]["in_all"]} if last["states"] else {}
    _require(limits, last["label"], {**last["kinds"], "total": last["all"], **in_states})


def _evaluate_suite(
    models: list[str],
    suite: str,
    count: int | None,
    site: Any,
    placement: Any,
    out: Path,
    misses: bool,
    is_fresh: bool,
    states: int,
    limits: Mapping[str, float],
    as_json: bool,
) -> None:
    """Grade models on cases of others, on all or some of them."""
    from edge_agent.evaluation.own.own_evaluation import OwnSuite
    from edge_agent.evaluation.suites import bfcl, ha_intents

    name, _, folder = suite.partition("=")
    if name == bfcl.NAME:
        _evaluate_bfcl(models, folder, count, site, placement, out, limits, as_json)
        return
    if name != ha_intents.NAME:
        raise UsageError(f"no suite is called {name!r}", hint=f"there are {bfcl.NAME} and {ha_intents.NAME}")
    found = ha_intents.read_ha_intents(ha_intents.find_ha_intents(folder))
    _tell("\n".join(ha_intents.left_out_lines(found)))
    own = OwnSuite(found.cases, "Home Assistant's intents: sentences of its tests", name, found.left_out)
    _evaluate_own(models, own, count, found.home.site, placement, out, misses, is_fresh, states, limits, as_json)


def _evaluate_bfcl(
    models: list[str],
    folder: str,
    count: int | None,
    site: Any,
    placement: Any,
    out: Path,
    limits: Mapping[str, float],
    as_json: bool,
) -> None:
    """Grade models on BFCL, on all cases or some of each category; writes bfcl.json."""
    from devices.durable import write_file
    from edge_agent.evaluation.model_processes import find_models, grade_bfcl
    from edge_agent.evaluation.suites.bfcl import bfcl_plain, bfcl_table, find_bfcl, read_bfcl

    cases = read_bfcl(find_bfcl(folder), count)
    graded = [(model.label, grade_bfcl(model, cases, placement)) for model in find_models(models, site)]
    plain: dict[str, Any] = {"title": "BFCL v4", "command": _command_line(), "models": bfcl_plain(graded)}
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain, ensure_ascii=False, indent=1)
    write_file(out / "bfcl.json", text.encode())
    print(text if as_json else f"{bfcl_table(graded)}\n{out / 'bfcl.json'}")
    last = plain["models"][-1]
    _require(limits, last["label"], last["constrained"]["categories"])


def _evaluate_turns(
    models: list[str],
    path: Path | None,
    toolset: Any,
    placement: Any,
    out: Path,
    execution: str,
    names_seed: int | None,
    limits: Mapping[str, float],
    as_json: bool,
) -> None:
    """Grade models on the replies of held-out conversations; writes turns.html and turns.json."""
    from devices.drivers.registry import require_drivers
    from devices.durable import write_file
    from edge_agent.evaluation.conversations.executed import Execution
    from edge_agent.evaluation.conversations.turn_report import METRICS, executed_line, to_plain, turns_table
    from edge_agent.evaluation.conversations.turns import cases_of, read_conversations, renamed_conversations
    from edge_agent.evaluation.model_processes import execute, find_models, grade_turns
    from edge_agent.evaluation.report_page import render_turns
    from edge_agent.run_facts import HELD_OUT_FILE
    from edge_agent.wire.chat_template import load_template
    from edge_agent.wire.contract import contract_of

    if execution and names_seed is not None:
        raise UsageError(
            "--execute and --renamed", hint="executors know the tools by their own names: give one of them"
        )
    if execution and execution not in get_args(Execution):
        raise UsageError(f"--execute {execution}", hint=f"choose from {', '.join(get_args(Execution))}")
    if execution == "live":
        require_drivers(toolset)
    held_out = [Path(name) / HELD_OUT_FILE for name in models]
    path = path or next((one for one in held_out if one.is_file()), None)
    if path is None:
        raise UsageError(
            "on which conversations?", hint=f"give --cases RUN/{HELD_OUT_FILE}, or the run among the models"
        )
    found = find_models(models, toolset)
    conversations = read_conversations(path, contract_of(toolset, load_template(found[0].template)))
    if names_seed is not None:
        conversations = renamed_conversations(conversations, toolset, names_seed)
    cases = [case for one in conversations for case in cases_of(one)]
    graded = [(model.label, grade_turns(model, cases, placement)) for model in found]
    how = cast(Execution, execution)
    executed = [execute(model, toolset, conversations, placement, how) for model in found] if execution else []
    plain: dict[str, Any] = {
        "title": f"{toolset.name}{'' if names_seed is None else ', tools renamed'}: replies in own conversations",
        "command": _command_line(),
        "cases": str(path),
        "replies": len(cases),
        "models": to_plain(graded, executed),
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain, ensure_ascii=False, indent=1)
    write_file(out / "turns.json", text.encode())
    page = render_turns(plain, [(name, title) for name, title, _ in METRICS])
    write_file(out / "turns.html", page.encode())
    lines = [f"{len(cases)} replies of {path}", turns_table(graded)]
    lines += [executed_line(model.label, done) for model, done in zip(found, executed, strict=False)]
    print(text if as_json else "\n".join([*lines, str(out / "turns.html")]))
    last = plain["models"][-1]
    _require(limits, last["label"], last["constrained"]["metrics"])


def _command_line() -> str:
    return " ".join(["edgewright", *sys.argv[1:]])
