"""The commands `edgewright run`, `serve`, `bench`, `selftest` and `doctor`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import edge_agent.evaluation.cli
from devices.errors import UsageError
from devices.options import GpuLayers, Intents, Json, Live, Mode, Toolset, Yes
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


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    edge_agent.evaluation.cli.register(app)
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
    gpu_layers: GpuLayers = 0,
    threads: _Threads = None,
    accept: _Accept = 0.8,
    intents: Intents = "",
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
            intents=intents,
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
    gpu_layers: GpuLayers = 0,
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
