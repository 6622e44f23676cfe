"""The commands `edgewright eval` and `compare`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from devices.errors import UsageError
from devices.options import GpuLayers, Intents, Json, Site, Toolset, TorchDevice
from edge_agent.evaluation.baselines.few_shot import SHOTS, FewShot
from edge_agent.evaluation.cases import CASES, CASES_SEED


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
    ray: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Grade the models at once on the machines of a Ray cluster, which have this program and the models.",
        ),
    ] = "",
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
    is_typed_otherwise: Annotated[
        bool,
        typer.Option(
            "--typed", help="Of a .yaml file or ha-intents, ask also in capitals, as speech is heard, and with slips."
        ),
    ] = False,
    few_shot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Also grade what is untrained with worked examples of these conversations in its prompt.",
        ),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="With --few-shot: how many examples.")] = SHOTS,
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
    from devices.site.site import load_site
    from edge_agent.evaluation.eval_command import EvalCommand
    from edge_agent.evaluation.models.placement import Placement

    command = EvalCommand(
        models=tuple(models),
        site=load_site(tools or site),
        out=out,
        placement=Placement(device, gpu_layers, load_in_4bit, intents, ray),
        count=count,
        states=states,
        is_typed_otherwise=is_typed_otherwise,
        is_fresh=is_fresh,
        shows_misses=misses,
        limits=_limits_of(fail_under or ()),
        as_json=as_json,
        few_shot=FewShot(few_shot, shots) if few_shot else None,
    )
    is_own = bool(cases and cases.suffix in {".yaml", ".yml"})
    has_own_form = (is_own and not command.site.is_toolset) or suite.partition("=")[0] == "ha-intents"
    if (states > 1 or is_typed_otherwise) and not has_own_form:
        name = "--states" if states > 1 else "--typed"
        raise UsageError(f"{name} is of --cases FILE.yaml and of --suite ha-intents", hint="leave it out here")
    if few_shot and (suite or is_own or command.site.is_toolset):
        raise UsageError("--few-shot is of a site's generated cases", hint="leave --cases, --suite and --tools out")
    if suite:
        command.grade_suite(suite)
        return
    if command.site.is_toolset:
        command.grade_replies(cases, execution, names_seed)
        return
    if execution:
        raise UsageError("--execute is of toolsets", hint="a site's cases are always carried out, in simulated worlds")
    if names_seed is not None and cases:
        raise UsageError("--renamed makes its own cases: those of a file have the tools' own names")
    if cases and is_own:
        command.grade_own_file(cases)
        return
    command.grade_cases(cases, seed, names_seed, stage_times)


def _limits_of(given: Iterable[str]) -> dict[str, float]:
    limits = {}
    for one in given:
        name, _, share = one.partition("=")
        try:
            limits[name] = float(share)
        except ValueError:
            raise UsageError(f"--fail-under {one}", hint="as in --fail-under task_success=0.9") from None
    return limits


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
