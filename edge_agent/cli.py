"""The commands `edgewright eval`, `run`, `serve`, `bench`, `selftest` and `doctor`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Annotated, Any, cast, get_args

import typer

from devices.errors import UsageError
from devices.options import Json, Live, Mode, Site, Toolset, TorchDevice, Yes
from edge_agent.evaluation.cases import CASES, CASES_SEED
from edge_agent.plugins import CASE_MAKERS, GENERATOR, load_plugin
from edge_agent.progress import ProgressBar

_Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE|BOX", help="A bundle, or a box that was flashed.")]
_OwnSite = Annotated[
    str, typer.Option("--site", help="A site that ships with Edgewright, or a .yaml file; default: the bundle's own.")
]
_JournalFile = Annotated[Path | None, typer.Option(help="The journal's file; a box has its own.")]
_Threads = Annotated[int | None, typer.Option(min=1, help="Of the engine.")]
_Accept = Annotated[
    float, typer.Option(min=0, max=1, help="Share of generated cases to be done on a site new to the model.")
]
_GpuLayers = Annotated[int, typer.Option("--gpu-layers", help="llama.cpp layers on the GPU; -1 for all.")]


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    app.command("eval")(evaluate)
    app.command("run")(run)
    app.command("serve")(serve)
    app.command("bench")(bench)
    app.command("selftest")(selftest)
    app.command("doctor")(doctor)


def register_box(box: typer.Typer) -> None:
    """Add the commands that are run on a box."""
    box.command("unit")(unit)


def unit(
    path: _Bundle,
    site: _OwnSite = "",
    configuration: Annotated[Path | None, typer.Option("--config", help="serve.yaml, by a path on the box.")] = None,
    live: Live = False,
    user: Annotated[str, typer.Option(help="Who runs it; default: a user of systemd's own.")] = "",
) -> None:
    """Print the systemd unit that serves a box, hardened, with the device files that its site needs and no others."""
    from devices.site.site import load_site
    from edge_agent.box.unit import unit_of

    words = ["--site", str(Path(site).absolute()) if Path(site).is_file() else site] if site else []
    words += ["--config", str(configuration.absolute())] if configuration else []
    print(unit_of(path, load_site(site) if site else None, words, is_live=live, user=user), end="")


def evaluate(
    models: Annotated[list[str], typer.Argument(help="GGUF files, bundles, boxes, runs, folders or hub names.")],
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
    gpu_layers: _GpuLayers = 0,
    names_seed: Annotated[
        int | None,
        typer.Option("--renamed", help="Give tools and arguments other names, by this seed; a site's cases are new."),
    ] = None,
    load_in_4bit: Annotated[bool, typer.Option("--nf4", help="Load Hugging Face models as NF4.")] = False,
    execution: Annotated[
        str,
        typer.Option(
            "--execute",
            metavar="recorded|live",
            help="Of a toolset, also whole conversations: calls are answered as recorded, or carried out, confirmed.",
        ),
    ] = "",
    misses: Annotated[bool, typer.Option("--misses", help="Of a .yaml file, also print what went wrong.")] = False,
    stage_times: Annotated[Path | None, typer.Option(hidden=True)] = None,
    as_json: Json = False,
) -> None:
    """Measure models on the same held-out cases; writes report.html and report.json."""
    from devices.site.renaming import renamed
    from devices.site.site import load_site
    from edge_agent.evaluation.model_processes import Placement, evaluate_models, load_or_make_cases
    from edge_agent.evaluation.report import terminal_table, write_report

    trained, placement = load_site(tools or site), Placement(device, gpu_layers, load_in_4bit)
    if trained.is_toolset:
        _evaluate_turns(models, cases, trained, placement, out, execution, names_seed, as_json)
        return
    if execution:
        raise UsageError("--execute is of toolsets", hint="a site's cases are always carried out, in simulated worlds")
    if names_seed is not None and cases:
        raise UsageError("--renamed makes its own cases: those of a file have the tools' own names")
    if cases and cases.suffix in {".yaml", ".yml"}:
        _evaluate_own(models, cases, count, trained, placement, out, misses, as_json)
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


def _evaluate_own(
    models: list[str],
    path: Path,
    count: int | None,
    site: Any,
    placement: Any,
    out: Path,
    misses: bool,
    as_json: bool,
) -> None:
    """Grade models on cases that a person wrote, all or some at even distances; writes own_cases.json."""
    from dataclasses import asdict

    from devices.durable import write_file
    from edge_agent.evaluation.evaluation import spread
    from edge_agent.evaluation.model_processes import find_model, grade_own_cases
    from edge_agent.evaluation.own_cases import read_own_cases, table_of

    cases = read_own_cases(path, site)
    cases = spread(cases, count) if count else cases
    found = [find_model(name, site) for name in models]
    graded = [(model.label, grade_own_cases(model, site, cases, placement)) for model in found]
    plain = {
        "command": _command_line(),
        "cases": str(path),
        "models": [{"label": label, "turns": [asdict(one) for one in turns]} for label, turns in graded],
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain, ensure_ascii=False, indent=1)
    write_file(out / "own_cases.json", text.encode())
    tables = [
        f"{label}, {len(cases)} cases of {path.name}\n{table_of(turns, shows_misses=misses)}" for label, turns in graded
    ]
    print(text if as_json else "\n\n".join(tables))


def _evaluate_turns(
    models: list[str],
    path: Path | None,
    toolset: Any,
    placement: Any,
    out: Path,
    execution: str,
    names_seed: int | None,
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
    plain = {
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


def _command_line() -> str:
    return " ".join(["edgewright", *sys.argv[1:]])


def run(
    path: _Bundle,
    site: _OwnSite = "",
    tools: Toolset = "",
    ask: Annotated[str | None, typer.Option("--ask", help="One request, in a fresh simulated world.")] = None,
    ask_file: Annotated[
        Path | None,
        typer.Option(
            "--ask-file",
            help="A request a line, or a conversation as a JSON list of requests, each in a fresh world; - for stdin.",
        ),
    ] = None,
    yes: Yes = False,
    mode: Mode = "auto",
    live: Live = False,
    journal: _JournalFile = None,
    gpu_layers: _GpuLayers = 0,
    threads: _Threads = None,
    accept: _Accept = 0.8,
    as_json: Json = False,
) -> None:
    """Work a site: talk at the terminal, or answer --ask or each line of --ask-file."""
    from edge_agent.engine.process import started_early

    with started_early():
        from devices.errors import UsageError
        from edge_agent.agent.session import open_session, read_asks

        if ask is not None and ask_file is not None:
            raise UsageError("--ask and --ask-file are both given", hint="give one of them")
        conversations = [[ask]] if ask is not None else read_asks(ask_file) if ask_file else None
        with open_session(
            path,
            tools or site,
            journal=journal,
            says_yes=yes,
            mode=mode,
            is_live=live,
            gpu_layers=gpu_layers,
            threads=threads,
            admit=lambda *given: _admit(accept, *given),
        ) as runner:
            if conversations is None:
                where = f"{runner.site.title}, {'live' if runner.is_live else 'simulated'}"
                print(f"{where}. Say what you want; an empty line or Ctrl-D ends.", file=sys.stderr)
                runner.converse(_read_line, print, _ask_person)
                return
            for result in runner.answers(conversations):
                print(json.dumps(result, ensure_ascii=False) if as_json else _plain(result), flush=True)


def serve(
    path: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE|BOX", help="A bundle, or a box that was flashed.")
    ] = None,
    site: _OwnSite = "",
    tools: Toolset = "",
    configuration: Annotated[
        Path | None, typer.Option("--config", help="serve.yaml: which doors to open, and where; default: HTTP here.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Over the file, such as http.port=9000.")
    ] = None,
    mode: Mode = "auto",
    live: Live = False,
    journal: _JournalFile = None,
    gpu_layers: _GpuLayers = 0,
    threads: _Threads = None,
    accept: _Accept = 0.8,
    over_stdio: Annotated[
        bool, typer.Option("--mcp-stdio", help="MCP on standard input and output instead, for a client that starts it.")
    ] = False,
    is_check: Annotated[
        bool, typer.Option("--check", help="Check box and configuration, say what would be opened, stop.")
    ] = False,
    new_token: Annotated[
        Path | None,
        typer.Option("--new-token", metavar="FILE", help="Make a token file for http.token_file, and stop."),
    ] = None,
) -> None:
    """Serve a box day and night: OpenAI's API, a web page, MCP, MQTT with Home Assistant, Wyoming."""
    try:
        from edge_agent.serving.check import check_box, check_doors, new_token_file
        from edge_agent.serving.configuration import load_configuration
    except ImportError as error:
        raise UsageError(f"serving needs the package {error.name}", hint="pip install edgewright[serve]") from error

    if new_token:
        print(new_token_file(new_token))
        return
    wanted = load_configuration(configuration, overrides or ())
    if is_check:
        box = [check_box(path, tools or site, is_live=live)] if path else []
        print("\n".join([*box, *check_doors(wanted)]))
        return
    if path is None:
        raise UsageError("which box?", hint="edgewright serve BUNDLE|BOX")
    from edge_agent.engine.process import started_early

    with started_early():
        from edge_agent.serving.serve import serve as serve_box

        serve_box(
            path,
            tools or site,
            wanted,
            is_live=live,
            mode=mode,
            journal=journal,
            gpu_layers=gpu_layers,
            threads=threads,
            over_stdio=over_stdio,
            admit=lambda *given: _admit(accept, *given),
        )


def _admit(accept: float, *given: Any) -> None:
    from edge_agent.evaluation.site_trial import admit_if  # only where it is needed: `run` is to start quickly

    admit_if(accept)(*given)


def bench(
    path: _Bundle,
    site: _OwnSite = "",
    tools: Toolset = "",
    is_tuning: Annotated[
        bool,
        typer.Option("--tune", help="Try threads, attention, batches and speculative decoding; keep what is quickest."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure how quickly a box replies on this machine."""
    from edge_agent.engine.autotune import Trial
    from edge_agent.evaluation.bench import bench as measure

    def log(trial: Trial) -> None:
        settings = ", ".join(f"{name} {value}" for name, value in vars(trial.tuning).items() if value is not None)
        print(f"{1000 * trial.call_s:7.1f} ms a reply, {trial.memory_bytes / 1e6:6.0f} MB: {settings}", file=sys.stderr)

    result = measure(path, tools or site, is_tuning=is_tuning, log=log)
    settings = " ".join(f"{name}={value}" for name, value in result["tuning"].items())
    print(json.dumps(result, indent=2) if as_json else f"{1000 * result['call_s']:.1f} ms a reply: {settings}")


def selftest(
    path: _Bundle,
    as_json: Json = False,
) -> None:
    """Run a bundle's smoke cases on this machine, in simulated worlds, and compare with what was recorded at export."""
    from dataclasses import asdict

    from edge_agent.evaluation.selftest import selftest as run_cases

    bar = ProgressBar()
    found = run_cases(path, lambda done, total: bar.show(done, total, f"{done} of {total} cases"))
    print(json.dumps(asdict(found) | {"is_passed": found.is_passed}, ensure_ascii=False) if as_json else found)
    found.require(path)


def doctor(
    path: _Bundle,
    site: _OwnSite = "",
    tools: Toolset = "",
    live: Annotated[
        bool,
        typer.Option("--live", help="Also connect, once, to the hosts of drivers; each device must have a driver."),
    ] = False,
    journal: _JournalFile = None,
    as_json: Json = False,
) -> None:
    """Look at this machine and a box: whether the agent will run here, and what to do if not."""
    from edge_agent.box.doctor import examine

    def progress(what: str) -> None:
        print(f"looking at {what} ...", file=sys.stderr, flush=True)

    found = examine(path, tools or site, is_live=live, journal=journal, progress=progress)
    print(json.dumps(found.to_plain(), ensure_ascii=False) if as_json else found)
    found.require()


def _plain(result: Mapping[str, Any]) -> str:
    actions = [f"  {item['device']} {item['action']}: {item['status'].replace('_', ' ')}" for item in result["actions"]]
    return "\n".join([f"> {result['ask']}", *actions, result["answer"]])


def _read_line() -> str | None:
    try:
        return input("> ") or None
    except EOFError:
        return None


def _ask_person(effect: str) -> bool:
    try:
        return input(f"confirm {effect}? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False
