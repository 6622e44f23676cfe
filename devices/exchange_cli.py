"""The commands that get sites from elsewhere and give them away: `edgewright devices discover`, `import`, `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from devices.errors import UsageError
from devices.options import Json, SiteArgument

_Out = Annotated[
    Path, typer.Option(help="The site file; in one that is there, what a person wrote stays.", metavar="SITE.yaml")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")]


def register_exchange(group: typer.Typer) -> None:
    """Add these commands to those of `edgewright devices`."""
    group.command("discover")(discover_devices)
    group.command("import")(import_site)
    group.command("export")(export_site)


def discover_devices(
    mqtt: Annotated[str, typer.Option(metavar="HOST", help="An MQTT broker with zigbee2mqtt or Homie devices.")] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the MQTT broker.")] = 1883,
    user: Annotated[
        str, typer.Option(metavar="NAME", help="Whom the MQTT broker knows; the password is in MQTT_PASSWORD.")
    ] = "",
    topics: Annotated[
        list[str] | None,
        typer.Option(metavar="FILTER", help="Other topics, to be guessed by what is said there, as 'garden/#'."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, max=3600, help="How long to listen; otherwise until it is quiet.")
    ] = None,
    home_assistant: Annotated[
        str, typer.Option(metavar="URL", help="Home Assistant, as http://192.0.2.8:8123; its token is in HASS_TOKEN.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="A site file to make of what they know, or to renew.", metavar="SITE.yaml")
    ] = None,
    dry_run: _DryRun = False,
    as_json: Json = False,
) -> None:
    """Show what this machine could drive: serial lines, pins, buses, and what others know. Touches no device."""
    from devices.exchange.discovery import broker_topics, local_ports
    from devices.exchange.home_assistant_api import fetch_home, require_url
    from devices.exchange.imports.home_assistant import import_home_assistant
    from devices.exchange.imports.topics import import_topics

    if mqtt and home_assistant:
        hint = "give --mqtt or --home-assistant; --out adds to a site that is there"
        raise UsageError("one source is asked at a time", hint=hint)
    if not mqtt and (topics or user or seconds is not None):
        raise UsageError("--topics, --user and --seconds are of an MQTT broker", hint="name it with --mqtt")
    if out and not mqtt and not home_assistant:
        raise UsageError("--out makes a site of what others know", hint="name one with --mqtt or --home-assistant")
    found, imported, source = local_ports(), None, ""
    if home_assistant:
        source = f"home_assistant {(url := require_url(home_assistant))}"
        imported = import_home_assistant([fetch_home(url)], url, url)
        imported.host = url
    elif mqtt:
        source = " ".join(["mqtt", f"{mqtt}:{port}", *sorted(topics or [])])
        heard = broker_topics(mqtt, port, topics or [], seconds, user)
        imported = import_topics(heard, mqtt, f"{mqtt}:{port}", port, user)
    if imported:
        found |= {
            "devices": [*imported.devices],
            "groups": [*imported.groups],
            "left out": imported.left_out,
            "notes": imported.told,
            "counts": [imported.counts],
        }
    print(
        json.dumps(found) if as_json else "\n".join(f"{key}: {', '.join(some) or '-'}" for key, some in found.items())
    )
    if out and imported:
        _import_into(out, {source: imported}, dry_run=dry_run)


def import_site(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="As JSON: zigbee2mqtt's devices, Thing Descriptions, answers of Tasmota, Shelly or Home Assistant;"
            " as CSV: a Modbus register map; as .txt: MQTT topics, as mosquitto_sub -v prints them. Several make one"
            " site."
        ),
    ],
    out: _Out,
    host: Annotated[
        str,
        typer.Option(
            help="The MQTT broker, Home Assistant, or the Modbus server; by default that of the last import, and this"
            " machine in the first."
        ),
    ] = "",
    dry_run: _DryRun = False,
) -> None:
    """Make a site file of what others know of devices, or renew one; look it through before you use it."""
    import os

    from devices.exchange.imports.files import import_files
    from devices.exchange.imports.imported import THIS_MACHINE
    from devices.exchange.site_import import last_hosts

    named = {os.path.relpath(file, out.parent): file for file in files}
    known = {} if host else last_hosts(out)
    _import_into(out, import_files(named, lambda name: host or known.get(name, THIS_MACHINE)), dry_run=dry_run)


def _import_into(out: Path, sources: dict[str, Any], *, dry_run: bool) -> None:
    from devices.broker.runtime import warn
    from devices.exchange.site_import import import_into

    made = import_into(out, sources)
    if not dry_run:
        made.write()
    for one in made.account.left_out:
        warn(f"left out: {one}")
    for note in made.account.told:
        warn(note)
    for line in made.lines:
        print(line)
    print(made.account.counts)
    what = "would have" if dry_run else "has"
    print(f"{out} {what} {made.devices} devices; set `risk`, interlocks and aliases before you use it")


def export_site(
    site: SiteArgument,
    to: Annotated[Literal["things", "openai", "home-assistant"], typer.Option(help="In whose words.")],
    base: Annotated[
        str, typer.Option(help="things: the address under which something serves them.")
    ] = "http://localhost",
) -> None:
    """Print a site as W3C Thing Descriptions, OpenAI tools, or Home Assistant discovery messages by topic."""
    from devices.exchange import exports as exporting
    from devices.site.site import load_site

    loaded = load_site(site)
    found: Any
    if to == "things":
        found = exporting.thing_descriptions(loaded, base)
    else:
        found = exporting.openai_tools(loaded) if to == "openai" else exporting.home_assistant_discovery(loaded)
    print(json.dumps(found, indent=2))
