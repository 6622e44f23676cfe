"""The commands `edgewright devices …`: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import RefusedError, UnavailableError, UsageError, did_you_mean
from devices.exchange_cli import register_exchange
from devices.options import Json, Live, Mode, Site, SiteArgument, Yes

if TYPE_CHECKING:
    from devices.site.site import Site as LoadedSite
    from devices.site.tools import Command

_Journal = Annotated[Path, typer.Argument(help="A box, or a journal file.", metavar="BOX")]


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    group = typer.Typer(no_args_is_help=True, help="List, read and command the devices of a site.")
    group.command("list")(list_devices)
    group.command("read")(read_devices)
    group.command("call")(call_device)
    group.command("stop")(stop_devices)
    group.command("check")(check_site)
    register_exchange(group)
    app.add_typer(group, name="devices")
    sim = typer.Typer(no_args_is_help=True, help="Simulated peers of a site's devices, over their real protocols.")
    sim.command("up")(sim_up)
    sim.command("fault")(sim_fault)
    app.add_typer(sim, name="sim")
    app.command("log")(show_log)
    app.command("why")(explain_command)


def list_devices(site: Site = "home", as_json: Json = False) -> None:
    """List a site's devices with their properties and actions."""
    from devices.site.site import load_site
    from devices.site.tools import tools_of

    loaded = load_site(site)
    if as_json:
        devices = {name: device.model_dump(exclude_defaults=True) for name, device in loaded.devices.items()}
        print(
            json.dumps({"site": loaded.name, "devices": devices, "tools": [tool.openai() for tool in tools_of(loaded)]})
        )
        return
    width = max(len(name) for name in (*loaded.devices, *loaded.scenes))
    for name, device in loaded.devices.items():
        actions = ", ".join(
            name + ("" if action.risk in {"none", "low"} else f" ({action.risk})")
            for name, action in device.actions.items()
        )
        print(f"{name:<{width}}  {device.kind:<13}  {', '.join(device.properties):<27}  {actions or '-'}")
    for name, scene in loaded.scenes.items():
        print(f"{name:<{width}}  scene          {', '.join(scene.devices)}")


def read_devices(
    devices: Annotated[list[str] | None, typer.Argument(help="Devices; all of them by default.")] = None,
    site: Site = "home",
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Read properties of devices, simulated ones unless --live."""
    from devices.broker.journal import Journal
    from devices.broker.readings import FRESH_S
    from devices.broker.runtime import live_runtime, simulated_runtime
    from devices.simulation.world import World
    from devices.site.describe import age_text, describe, sentence
    from devices.site.site import load_site

    loaded = load_site(site)
    devices = [_require_device(name, list(loaded.devices)) for name in devices or []]
    runtime = live_runtime(loaded, Journal()) if live else simulated_runtime(World(loaded))
    broker = runtime.broker
    state = {name: found for name, found in broker.readings().items() if not devices or name in devices}
    runtime.close()
    if as_json:
        print(json.dumps({name: {key: one.value for key, one in found.items()} for name, found in state.items()}))
    else:
        print(f"{'live' if live else 'simulated world'}, {runtime.clock_text}")
        for name, found in state.items():
            facts = []
            for key, reading in found.items():
                fact, age_s = describe(loaded.devices[name], key, reading.value), broker.age_s(reading)
                facts.append(f"{fact} ({age_text(age_s)})" if age_s > FRESH_S else fact)
            missing = [key for key in loaded.devices[name].properties if key not in found]
            rest = f" No reading: {', '.join(missing)}." if missing else ""
            print(sentence(*facts) + rest if facts else f"The {loaded.devices[name].title} does not answer.")
    if silent := [name for name, found in state.items() if not found]:
        raise UnavailableError(f"no answer from {', '.join(silent)}", hint="edgewright devices check shows the drivers")


def call_device(
    device: Annotated[str, typer.Argument(help="Or a scene of the site.")],
    action: Annotated[str, typer.Argument(help="Of the device; of a scene turn_on.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments as name=value.")] = None,
    site: Site = "home",
    yes: Yes = False,
    mode: Mode = "auto",
    live: Live = False,
    journal: Annotated[Path | None, typer.Option(help="Only with --live: its file; default: the site's own.")] = None,
    as_json: Json = False,
) -> None:
    """Carry out one action, or a scene, through the broker, simulated unless --live; stays until a timed one ends."""
    from devices.broker.journal import Journal
    from devices.broker.runtime import default_journal, live_runtime, simulated_runtime, warn
    from devices.simulation.world import World
    from devices.site.site import load_site

    if journal and not live:
        raise UsageError(
            "--journal is for real devices: a simulated world keeps none", hint="add --live, or leave it out"
        )
    loaded = load_site(site)
    commands = _commands_for(loaded, device, action, arguments or [])
    confirm = (lambda effect: True) if yes else None
    if live:
        runtime = live_runtime(loaded, Journal(journal or default_journal(loaded)), confirm, mode)
        runtime.keep_time(warn)
    else:
        runtime = simulated_runtime(World(loaded), confirm=confirm, mode=mode)
    try:
        outcomes = []
        for command in commands:
            outcome = runtime.broker.execute(command)
            outcomes.append(outcome)
            shown = {"status": outcome.status, "report": outcome.report, "state": runtime.state()}
            text = json.dumps(shown) if as_json else f"{outcome.status.replace('_', ' ')}: {outcome.report}"
            print(text, flush=True)
        if live:
            runtime.wait_for_endings(warn)
    finally:
        for problem in runtime.close():
            warn(problem)
    for outcome in outcomes:
        what = f"{outcome.command.device} {outcome.command.action}"
        if outcome.status in {"refused", "needs_confirmation"}:
            hint = "add --yes to confirm" if outcome.status == "needs_confirmation" else ""
            raise RefusedError(f"{what}: {outcome.status.replace('_', ' ')}", hint=hint)
        if outcome.status not in {"done", "dry_run"}:
            raise UnavailableError(f"{what}: {outcome.status}")


def _commands_for(site: LoadedSite, device: str, action: str, arguments: list[str]) -> tuple[Command, ...]:
    """Return the command of a device and its action as they were typed, or those of a scene."""
    from devices.broker.runtime import parse_arguments
    from devices.site.site import find_name
    from devices.site.tools import Command, scene_commands

    if device not in site.devices and (scene := find_name(device, site.scenes)) is not None:
        if action != "turn_on" or arguments:
            raise UsageError(f"{scene} is a scene: it takes turn_on and nothing else")
        return scene_commands(site, scene)
    device = _require_device(device, list(site.devices))
    known = site.devices[device].actions
    if (name := find_name(action, known)) is None:
        hint = f"{device} can {', '.join(known)}" if known else f"{device} can only be read"
        raise UsageError(f"{device} has no action {action!r}", hint=hint)
    return (Command(device, name, parse_arguments(known[name], arguments)),)


def stop_devices(site: Site = "home") -> None:
    """Close and stop now what can be on a real site: past model, policy and a controller that runs."""
    from devices.broker.journal import Journal
    from devices.broker.runtime import default_journal, live_runtime, warn
    from devices.errors import EdgeError
    from devices.site.site import load_site

    loaded = load_site(site)
    try:
        journal = Journal(default_journal(loaded))
    except EdgeError as error:  # another controller has it, or the disk is full
        warn(f"not journalled: {error}")
        journal = Journal()
    runtime = live_runtime(loaded, journal)
    problems = runtime.broker.stop()
    problems += runtime.close()
    for problem in problems:
        warn(problem)
    if problems:
        raise UnavailableError(f"{len(problems)} may not have stopped", hint="switch them off by hand")
    print("stopped: " + ", ".join(name for name, device in loaded.devices.items() if _is_stoppable(device)))


def _is_stoppable(device: Any) -> bool:
    return any(action.safe for action in device.actions.values())


def check_site(site: SiteArgument, as_json: Json = False) -> None:
    """Check a site file with its drivers and addresses; touches no hardware."""
    from devices.drivers.registry import load_checked_site
    from devices.site.site import shared_names
    from devices.site.tools import tools_of

    loaded = load_checked_site(site)  # every problem raises
    if shared := shared_names(loaded):
        name, called = next(iter(shared.items()))
        hint = "give each a title and aliases of its own; capitals make no difference"
        raise UsageError(f"{site}: {' and '.join(called)} are both called {name!r}", hint=hint)
    homeless = [name for name, device in loaded.devices.items() if not device.driver]
    facts = {
        "site": loaded.name,
        "devices": len(loaded.devices),
        "tools": len(tools_of(loaded)),
        "drivers": {name: str(settings["type"]) for name, settings in loaded.drivers.items()},
        "without_driver": homeless,
    }
    if as_json:
        print(json.dumps(facts))
        return
    print(f"{loaded.name}: {len(loaded.devices)} devices, {facts['tools']} tools")
    for name, settings in loaded.drivers.items():
        bound = sum(device.driver == name for device in loaded.devices.values())
        print(f"driver {name}: {settings['type']}, {bound} devices")
    if homeless:
        print(f"without a driver, so only simulated: {', '.join(homeless)}")


def sim_up(
    site: SiteArgument,
    speed: Annotated[float, typer.Option(min=0.01, max=3600, help="Simulated seconds in a real one.")] = 1.0,
) -> None:
    """Run a simulated peer for each driver of a site, until Ctrl-C; then use --live against it."""
    from devices.simulated_peers import run_peers
    from devices.site.site import load_site

    run_peers(load_site(site), speed, lambda text: print(text, flush=True))


def sim_fault(
    site: SiteArgument,
    words: Annotated[
        list[str],
        typer.Argument(metavar="FAULT", help="stick|silence|freeze DEVICE, delay SECONDS, garble, drop, clear"),
    ],
) -> None:
    """Make something go wrong in a running `sim up`, or `clear` it."""
    from devices.simulated_peers import send_fault
    from devices.site.site import load_site

    print(send_fault(load_site(site), words))


def show_log(
    path: _Journal,
    verify: Annotated[bool, typer.Option("--verify", help="Check that nothing was changed or removed.")] = False,
    digest: Annotated[str, typer.Option("--digest", help="With --verify: a last digest noted earlier.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one event a line, with digests.")] = False,
) -> None:
    """Show what a box proposed, refused, did and read back, from its journal."""
    from dataclasses import asdict

    from devices.broker.explain import event_line
    from devices.broker.journal import journal_path, read_events, verify_events

    file = journal_path(path)
    if verify or digest:
        count, last = verify_events(read_events(file), digest)
        print(
            json.dumps({"events": count, "digest": last}) if as_json else f"{count} events, whole; last digest {last}"
        )
        return
    for event in read_events(file):
        print(json.dumps(asdict(event)) if as_json else event_line(event))


def explain_command(
    path: _Journal,
    number: Annotated[int, typer.Argument(help="The number `edgewright log` shows for it.", metavar="ID")],
    as_json: Json = False,
) -> None:
    """Show why one command was or was not carried out: the state seen, each verdict, the result, the read-back."""
    from dataclasses import asdict

    from devices.broker.explain import explain
    from devices.broker.journal import journal_path, read_events

    events = list(read_events(journal_path(path), number))
    if not events or events[0].id != number or events[0].event != "PROPOSED":
        raise UsageError(f"the journal has no command {number}", hint=f"edgewright log {path} shows the numbers")
    print(json.dumps([asdict(event) for event in events]) if as_json else explain(events))


def _require_device(typed: str, known: list[str]) -> str:
    from devices.site.site import find_name

    if (name := find_name(typed, known)) is None:
        hint = did_you_mean(typed.lower(), known, f"devices: {', '.join(known)}")
        raise UsageError(f"the site has no device {typed!r}", hint=hint)
    return name
