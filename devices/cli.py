"""The commands `edgewright devices …`: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from devices.errors import RefusedError, UnavailableError, UsageError

_Site = Annotated[str, typer.Option("--site", help="A site that ships with Edgewright, or a .yaml file.")]
_Journal = Annotated[Path, typer.Argument(help="A box, or a journal file.", metavar="BOX")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    group = typer.Typer(no_args_is_help=True, help="List, read and command the devices of a site.")
    group.command("list")(list_devices)
    group.command("read")(read_devices)
    group.command("call")(call_device)
    app.add_typer(group, name="devices")
    app.command("log")(show_log)
    app.command("why")(explain_command)


def list_devices(site: _Site = "home", as_json: _Json = False) -> None:
    """List a site's devices with their properties and actions."""
    from devices.site import load_site
    from devices.tools import tools_of

    loaded = load_site(site)
    if as_json:
        devices = {name: device.model_dump(exclude_defaults=True) for name, device in loaded.devices.items()}
        print(
            json.dumps({"site": loaded.name, "devices": devices, "tools": [tool.openai() for tool in tools_of(loaded)]})
        )
        return
    width = max(len(name) for name in loaded.devices)
    for name, device in loaded.devices.items():
        actions = ", ".join(
            name + ("" if action.risk in {"none", "low"} else f" ({action.risk})")
            for name, action in device.actions.items()
        )
        print(f"{name:<{width}}  {device.kind:<13}  {', '.join(device.properties):<27}  {actions or '-'}")


def read_devices(
    devices: Annotated[list[str] | None, typer.Argument(help="Devices; all of them by default.")] = None,
    site: _Site = "home",
    as_json: _Json = False,
) -> None:
    """Read properties of devices (of the simulated world)."""
    from devices.simulated import open_broker

    broker, world = open_broker(site)
    for name in devices or []:
        _require_device(name, list(broker.site.devices))
    state = {name: values for name, values in broker.state().items() if not devices or name in devices}
    if as_json:
        print(json.dumps(state))
        return
    from devices.describe import describe, sentence

    print(f"simulated world, {world.clock}")
    for name, values in state.items():
        print(sentence(*(describe(broker.site.devices[name], key, value) for key, value in values.items())))


def call_device(
    device: Annotated[str, typer.Argument()],
    action: Annotated[str, typer.Argument()],
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments as name=value.")] = None,
    site: _Site = "home",
    yes: Annotated[bool, typer.Option("--yes", help="Confirm what needs confirmation.")] = False,
    as_json: _Json = False,
) -> None:
    """Carry out one action through the broker (in the simulated world)."""
    from devices.simulated import open_broker, parse_arguments
    from devices.tools import Command

    broker, world = open_broker(site, says_yes=yes)
    _require_device(device, list(broker.site.devices))
    known = broker.site.devices[device].actions
    if action not in known:
        hint = f"{device} can {', '.join(known)}" if known else f"{device} can only be read"
        raise UsageError(f"{device} has no action {action!r}", hint=hint)
    outcome = broker.execute(Command(device, action, parse_arguments(known[action], arguments or [])))
    if as_json:
        print(json.dumps({"status": outcome.status, "report": outcome.report, "state": world.snapshot()}))
    else:
        print(f"{outcome.status.replace('_', ' ')}: {outcome.report}")
    if outcome.status in {"refused", "needs_confirmation"}:
        hint = "add --yes to confirm" if outcome.status == "needs_confirmation" else ""
        raise RefusedError(f"{device} {action}: {outcome.status.replace('_', ' ')}", hint=hint)
    if outcome.status != "done":
        raise UnavailableError(f"{device} {action}: {outcome.status}")


def show_log(
    path: _Journal,
    verify: Annotated[bool, typer.Option("--verify", help="Check that nothing was changed or removed.")] = False,
    digest: Annotated[str, typer.Option("--digest", help="With --verify: a last digest noted earlier.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one event a line, with digests.")] = False,
) -> None:
    """Show what a box proposed, refused, did and read back, from its journal."""
    from dataclasses import asdict

    from devices.journal import journal_path, read_events, verify_events
    from devices.why import event_line

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
    as_json: _Json = False,
) -> None:
    """Show why one command was or was not carried out: the state seen, each verdict, the result, the read-back."""
    from dataclasses import asdict

    from devices.journal import journal_path, read_events
    from devices.why import explain

    events = list(read_events(journal_path(path), number))
    if not events or events[0].id != number or events[0].event != "PROPOSED":
        raise UsageError(f"the journal has no command {number}", hint=f"edgewright log {path} shows the numbers")
    print(json.dumps([asdict(event) for event in events]) if as_json else explain(events))


def _require_device(name: str, known: list[str]) -> None:
    import difflib

    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"devices: {', '.join(known)}"
        raise UsageError(f"the site has no device {name!r}", hint=hint)
